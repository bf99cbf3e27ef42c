/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a machine ended: a judgement from what QEMU and the kernel said.
 */
#ifndef SOSIE_VM_END_H
#define SOSIE_VM_END_H

#include <stdbool.h>

#include "base/macro.h"

/*     constant            name                failure detail sentence */
#define VM_END_TABLE(X)                                                                         \
	X(VM_END_POWER_OFF, "guest-power-off", false, false, "guest powered off")               \
	X(VM_END_STOPPED, "stopped", false, false, "stopped on request")                        \
	X(VM_END_FORCED, "forced", false, false, "stopped on request, by force")                \
	X(VM_END_PANIC, "guest-panic", true, false, "guest panicked")                           \
	X(VM_END_QUIT, "qemu-quit", true, false, "QEMU was told to quit")                       \
	X(VM_END_SIGNALLED, "qemu-signalled", true, false, "QEMU was asked to end by a signal") \
	X(VM_END_KILLED, "qemu-killed", true, true, "QEMU was killed by signal ")               \
	X(VM_END_EXITED, "qemu-exited", true, true, "QEMU exited with status ")                 \
	X(VM_END_NOT_STARTED, "qemu-not-started", true, true, "QEMU failed to start: ")

enum vm_end {
#define X(constant, name, failure, detailed, sentence) constant,
	VM_END_TABLE(X)
#undef X
		VM_ENDS
};

/* What is known when QEMU's process and its QMP connection have both ended. */
struct vm_end_facts {
	bool ran;                /* the guest was let go */
	bool stop_asked;         /* a stop was asked for … */
	bool force_used;         /* … and QEMU told to quit, or killed, for it */
	const char *shutdown;    /* "reason" of the last SHUTDOWN event, or NULL */
	int status;              /* as of waitpid(2) */
	const char *stderr_tail; /* what QEMU last wrote to its standard error */
};

#define VM_END_SENTENCE_MAX 2048
enum vm_end vm_end_judge(const struct vm_end_facts *facts, char sentence[VM_END_SENTENCE_MAX]);
const char *vm_end_name(enum vm_end end);
/* Whether it is a failure, or an end that somebody wanted. */
bool vm_end_is_failure(enum vm_end end);

#endif
