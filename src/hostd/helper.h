/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small programs (qemu-img, sha256sum) that do what would hold up the loop.
 */
#ifndef SOSIE_HOSTD_HELPER_H
#define SOSIE_HOSTD_HELPER_H

#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

#define HELPER_OUTPUT_MAX 4096 /* bytes of output and of errors that are kept; each */

struct helper;

/*
 * The program has ended. e: ERR_NONE when its status was 0, else a sentence with what it wrote to
 * its standard error. The helper is gone.
 */
typedef void (*helper_done_fn)(const struct err *e, const char *output, void *userdata);

/*
 * Starts argv[0] from the PATH, in an open directory (-1: this one); it ends with this process.
 * done is never called from within.
 */
int helper_start(sd_event *event, const char *const *argv, int directory, helper_done_fn done,
	void *userdata, struct helper **ret);
/* Kills the program; done is not called. NULL is accepted. */
void helper_free(struct helper *helper);

#endif
