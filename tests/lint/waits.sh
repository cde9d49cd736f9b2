#!/bin/bash
# Nobody waits by the wall clock, which anybody may set: clock_wait() takes the monotonic one.
. "$(dirname "$0")/lib.sh"

while IFS= read -r line; do
	[ -z "$line" ] || complain "waits by the wall clock: $line"
done < <(tracked '*.c' | grep -v '^tests/' | xargs -r grep -nHE '\b(pthread_cond_timedwait|pthread_mutex_timedlock|sem_timedwait)\(')
verdict
