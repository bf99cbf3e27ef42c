/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/end.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/str.h"

static const struct {
	const char *name;
	bool failure, detailed;
	const char *sentence;
} table[] = {
#define X(constant, name, failure, detailed, sentence) \
	[constant] = {name, failure, detailed, sentence},
	VM_END_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(table) == VM_ENDS, "one row per end");

const char *vm_end_name(enum vm_end end)
{
	return table[end].name;
}

bool vm_end_is_failure(enum vm_end end)
{
	return table[end].failure;
}

/* Names are those of QEMU's ShutdownCause. */
static enum vm_end judge_shutdown(const char *reason)
{
	if (!strcmp(reason, "guest-shutdown") || !strcmp(reason, "guest-reset"))
		return VM_END_POWER_OFF;
	if (!strcmp(reason, "guest-panic"))
		return VM_END_PANIC;
	if (!strcmp(reason, "host-signal"))
		return VM_END_SIGNALLED;
	return VM_END_QUIT;
}

static enum vm_end judge(const struct vm_end_facts *f)
{
	bool clean = WIFEXITED(f->status) && WEXITSTATUS(f->status) == 0;

	if (f->force_used)
		return VM_END_FORCED;
	if (WIFSIGNALED(f->status))
		return VM_END_KILLED;
	if (f->shutdown && clean) {
		enum vm_end end = judge_shutdown(f->shutdown);

		return f->stop_asked && end == VM_END_POWER_OFF ? VM_END_STOPPED : end;
	}
	if (!f->ran)
		return VM_END_NOT_STARTED;
	return VM_END_EXITED;
}

/* The tail on one line, without QEMU's name in front. */
static void one_line(const char *text, char *out, size_t size)
{
	static const char prefix[] = "qemu-system-x86_64: ";
	size_t n = 0;

	if (str_starts_with(text, prefix))
		text += sizeof(prefix) - 1;
	for (; *text && n < size - 1; text++)
		out[n++] = (unsigned char)*text < ' ' ? ' ' : *text;
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

enum vm_end vm_end_judge(const struct vm_end_facts *f, char sentence[VM_END_SENTENCE_MAX])
{
	enum vm_end end = judge(f);
	char detail[VM_END_SENTENCE_MAX - 64];

	one_line(f->stderr_tail ? f->stderr_tail : "", detail, sizeof(detail));
	if (end == VM_END_KILLED)
		(void)snprintf(detail, sizeof(detail), "%d", WTERMSIG(f->status));
	else if (end == VM_END_EXITED)
		(void)snprintf(detail, sizeof(detail), "%d", WEXITSTATUS(f->status));
	else if (detail[0] == '\0')
		(void)snprintf(detail, sizeof(detail), "it did not say why");
	(void)snprintf(sentence, VM_END_SENTENCE_MAX, "%s%s", table[end].sentence,
		table[end].detailed ? detail : "");
	return end;
}
