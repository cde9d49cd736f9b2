/**
 * thawer: a process of its own that has a guest's filesystems frozen, and thaws them whatever
 * becomes of the process that wants it.
 *
 * It owns the guest agent's channel: nobody else can say a word there as long as it lives.  Private
 * to freezer.c, which is the other end.
 */
#ifndef LOCUM_THAWER_H
#define LOCUM_THAWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#define THAWER_LINE 1024  /* what is passed on of an answer */
#define THAWER_AGAIN 2000 /* ms until a thaw that was not answered is asked for again */
#define THAWER_PATIENCE_MS INT64_C(600000) /* until it is given up */

/* What it is told to do once it is frozen. */
#define THAWER_ORDER_THAW 't'
#define THAWER_ORDER_LEAVE 'l' /* nothing was frozen: end */

enum thawer_word {
	THAWER_UNREACHABLE = 1, /* sys says why; nothing was asked */
	THAWER_BUSY,            /* another thawer is at this VM */
	THAWER_UNMARKED,        /* sys says why the mark can't be made; nothing was frozen */
	THAWER_SILENT,          /* no answer to the sync; nothing was frozen */
	THAWER_HELD,            /* somebody else has frozen it; it was left so */
	THAWER_REFUSED,         /* line: libvirt can't ask the agent; nothing was frozen */
	THAWER_CLOSED,          /* QEMU ended */
	THAWER_ANSWER,          /* line: what it answered to the freeze.  An order is awaited */
	THAWED,                 /* line: what it answered to the thaw */
	THAWER_STUCK,           /* no good answer to the thaw; it goes on asking for a while */
};

struct thawer_report { /* one packet */
	enum thawer_word word;
	int sys;
	bool late;       /* thawed for the time was up, and not by an order */
	int64_t held_ns; /* from the freeze's question to the thaw's answer */
	size_t n;
	char line[THAWER_LINE];
};

struct thawer_job {
	int talk;                  /* socket of packets: reports go out, orders come in */
	struct sockaddr_un socket; /* of the guest agent; libvirt's own, see uri */
	/* Where not "": libvirt is asked to ask it (relay.h), and only where libvirtd is not there
	 * the socket. */
	char uri[512], domain[256];
	/* A file that is there, locked, as long as a thawer is at work, and has a byte in it from
	 * before the freeze until after the thaw: so if the thawer is killed, too, it is known that
	 * something is left to be thawed. */
	char mark[256];
	int64_t answer_ms; /* for the sync */
	int64_t limit_ms;  /* from the freeze's question to the thaw's */
	int64_t thaw_ms; /* for the answer to the thaw, before it is reported that there is none */
	bool only_thaw;  /* what the mark tells of; without a byte in it nothing is done */
	uint64_t nonce;  /* of its questions */
};

/** thawer_main(job): in a process just forked: system calls only. */
_Noreturn void thawer_main(const struct thawer_job *job);

#endif
