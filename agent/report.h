/**
 * report: what continuous protection says of itself to others: figures for metrics (metrics.h), and
 * what goes wrong for alerts (alert.h).
 *
 * Thread: loop.
 */
#ifndef LOCUM_REPORT_H
#define LOCUM_REPORT_H

#include <stdio.h>

struct alert;
struct past;
struct protect;

#define REPORT_TICK_MS 200 /* how often report_alerts() is to be called */

/** report_metrics(p, past, f): p may be NULL (it is being exchanged, or the store is lent or can't
 * be opened): then the lags, which grow, are those of past (NULL: none is known). */
void report_metrics(const struct protect *p, const struct past *past, FILE *f);
/** report_alerts(p, a): look at everything; what was told of others is over.  Not while p is being
 * stopped. */
void report_alerts(const struct protect *p, struct alert *a);
/** report_past(past, a): while there is no protect, or it is being stopped: goals that are missed.
 */
void report_past(const struct past *past, struct alert *a);

#endif
