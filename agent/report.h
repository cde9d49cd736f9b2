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
struct protect;

#define REPORT_TICK_MS 200 /* how often report_alerts() is to be called */

/** report_metrics(p, f): p may be NULL (it is being exchanged). */
void report_metrics(const struct protect *p, FILE *f);
/** report_alerts(p, a): look at everything. */
void report_alerts(const struct protect *p, struct alert *a);

#endif
