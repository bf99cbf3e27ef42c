/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of QEMU's machine protocol (QMP) on an sd-event loop. Names are QEMU's.
 *
 * Not thread-safe. All values given to callbacks are borrowed for their duration.
 */
#ifndef SOSIE_IO_QMP_H
#define SOSIE_IO_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"

#define QMP_LINE_MAX        (1U << 20) /* one message from QEMU */
#define QMP_OUTPUT_MAX      (1U << 20) /* commands written but not yet taken by QEMU */
#define QMP_OUTSTANDING_MAX 64         /* commands without an answer, timed out ones included */
#define QMP_DEPTH_MAX       64
#define QMP_CLASS_MAX       32

struct qmp;

/* How a command ended. */
struct qmp_reply {
	const json_t *result; /* QEMU's "return", any JSON value; NULL when it failed */
	/*
	 * ERR_NONE, or: what QEMU's error stands for, with its desc as the message; ERR_TIMEOUT;
	 * ERR_UNAVAILABLE when the connection ended first: whether the command had its effect
	 * is then not known, as after a time-out.
	 */
	struct err err;
	char class[QMP_CLASS_MAX]; /* of QEMU's error ("GenericError", …), else "" */
};

typedef void (*qmp_reply_fn)(const struct qmp_reply *reply, void *userdata);

struct qmp_event {
	const char *name;     /* "SHUTDOWN", … */
	const json_t *data;   /* an object, or NULL */
	int64_t timestamp_ns; /* QEMU's, since 1970; -1 when it does not know */
};

struct qmp_callbacks {
	/* The greeting is taken and capabilities are negotiated; oob: whether it is enabled. */
	void (*ready)(struct qmp *qmp, bool oob, void *userdata);
	/* In the order in which QEMU sent them, also in between the replies. */
	void (*event)(struct qmp *qmp, const struct qmp_event *event, void *userdata);
	/*
	 * The connection has ended: ERR_UNAVAILABLE when QEMU closed it, ERR_CORRUPT when it did
	 * not speak QMP, ERR_TIMEOUT when there was no greeting. Every outstanding command has been
	 * failed before. The only call after this one is qmp_free(), possible from here.
	 */
	void (*closed)(struct qmp *qmp, const struct err *e, void *userdata);
};

struct qmp_options {
	bool oob;                       /* enable out-of-band execution when it is offered */
	uint64_t greeting_ns;           /* time limit for greeting and negotiation; 0: 10 s */
	struct qmp_callbacks callbacks; /* each may be NULL */
	void *userdata;
};

/* Connects to QEMU's socket; ready or closed is called later. */
int qmp_connect(sd_event *event, const char *path, const struct qmp_options *options,
	struct qmp **ret, struct err *e);
/* The same on a connected stream socket, of which it takes possession on success. */
int qmp_open(sd_event *event, int fd, const struct qmp_options *options, struct qmp **ret);
/*
 * Closes. Outstanding commands are dropped without a callback. Possible from any callback of
 * this client. NULL is accepted.
 */
void qmp_free(struct qmp *qmp);
DEFINE_CLEANUP(struct qmp *, qmp_free);

/* No limit on a command's time. */
#define QMP_NO_TIMEOUT UINT64_MAX

/*
 * Sends a command; reply (may be NULL) is called exactly once unless qmp_free() comes first, never
 * from within this call. The reference to arguments (may be NULL: none) is always taken.
 * After a time-out a late reply is ignored; QEMU goes on with the command all the same, so that it
 * counts as outstanding until then.
 *
 * -ENOTCONN before ready and after the end, -EBUSY with QMP_OUTSTANDING_MAX commands outstanding,
 * -ENOBUFS when QEMU does not take what was written.
 */
int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, uint64_t timeout_ns,
	qmp_reply_fn reply, void *userdata);
/* The same out of band: overtakes commands that hang. -EOPNOTSUPP without the capability. */
int qmp_execute_oob(struct qmp *qmp, const char *command, json_t *arguments, uint64_t timeout_ns,
	qmp_reply_fn reply, void *userdata);

/*
 * Connects, executes one command, waits for its reply and disconnects, all within timeout_ns.
 * *ret (ret may be NULL) is to be dropped. For tools; it runs a loop of its own.
 */
int qmp_call_sync(const char *path, const char *command, json_t *arguments, uint64_t timeout_ns,
	json_t **ret, struct err *e);

#endif
