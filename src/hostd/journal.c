/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance's event is in the journal exactly once: the entry itself holds the sequence that the
 * event has in the instance's record ("source"), so that one append both takes the event and says
 * how far its record was taken. Entries that are forgotten would lose that knowledge; so before
 * any is, STATE/shipped.json says the same for all instances, and what has been acknowledged.
 * After a crash the larger of the two holds.
 */
#include "hostd/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "hostd/privileged.h"
#include "io/file.h"
#include "io/json.h"
#include "io/record.h"

#define SHIPPED_BYTES_MAX (1U << 20)

struct journal {
	int state;
	struct record *record;
	uint64_t acknowledged, lost;
	json_t *taken; /* object: subject → the last sequence taken of its record */
};

void journal_free(struct journal *j)
{
	if (!j)
		return;
	record_free(j->record);
	json_decref(j->taken);
	if (j->state >= 0)
		(void)close(j->state);
	free(j);
}

static void note_taken(struct journal *j, const char *subject, uint64_t source)
{
	json_int_t known = json_integer_value(json_object_get(j->taken, subject));

	if ((json_int_t)source > known)
		(void)json_object_set_new(j->taken, subject, json_integer((json_int_t)source));
}

static int on_entry(uint64_t sequence, const json_t *entry, void *userdata)
{
	const char *subject = json_string_value(json_object_get(entry, "subject"));
	json_int_t source = json_integer_value(json_object_get(entry, "source"));

	(void)sequence;
	if (subject && source > 0)
		note_taken(userdata, subject, (uint64_t)source);
	else if (subject && source < 0)
		(void)json_object_del(((struct journal *)userdata)->taken, subject);
	return 0;
}

static int read_shipped(struct journal *j, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT(SHIPPED_BYTES_MAX);
	CLEANUP_JSON json_t *json = NULL;
	const json_t *taken = NULL;
	int64_t acknowledged = 0;
	int r = file_read_at(j->state, "shipped.json", &text);

	if (r < 0)
		return r == -ENOENT ? 0 : err_errno(e, r, "read shipped.json");
	r = json_parse(buf_text(&text), text.size, NULL, &json, e);
	if (r == 0)
		r = json_get_integer(json, "acknowledged", 0, INT64_MAX, &acknowledged, e);
	if (r == 0)
		r = json_get_object(json, "taken", &taken, e);
	if (r < 0)
		return r;
	j->acknowledged = (uint64_t)acknowledged;
	return json_object_update(j->taken, (json_t *)taken) < 0
		       ? err_errno(e, -ENOMEM, "read shipped.json")
		       : 0;
}

static int write_shipped(struct journal *j, struct err *e)
{
	CLEANUP_JSON json_t *json = json_pack(
		"{s:I, s:O}", "acknowledged", (json_int_t)j->acknowledged, "taken", j->taken);
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	if (!text)
		return err_errno(e, -ENOMEM, "write shipped.json");
	return privileged_write(j->state, "shipped.json", text, strlen(text), 0600, e);
}

int journal_open(int state, struct journal **ret, struct err *e)
{
	CLEANUP(journal_free_p) struct journal *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_errno(e, -ENOMEM, "open the journal");
	j->taken = json_object();
	j->state = fcntl(state, F_DUPFD_CLOEXEC, 3);
	if (j->state < 0 || !j->taken)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freed by its cleanup */
		return err_errno(e, j->state < 0 ? -errno : -ENOMEM, "open the journal");
	r = record_open(state, "events", &j->record, e);
	if (r == 0)
		r = read_shipped(j, e);
	if (r < 0)
		return r;
	r = record_each(j->record, 1, on_entry, j);
	if (r < 0)
		return err_errno(e, r, "read the journal");
	*ret = TAKE_PTR(j);
	return 0;
}

/* Drops the older half when it has grown too long. */
static void bound(struct journal *j)
{
	uint64_t first = record_first(j->record), next = record_next(j->record);
	uint64_t middle = first + (next - first) / 2, kept;

	if (record_bytes(j->record) <= JOURNAL_BYTES_MAX || write_shipped(j, NULL) < 0)
		return;
	kept = MAX(first, j->acknowledged + 1);
	if (record_forget(j->record, middle) == 0 && middle > kept)
		j->lost += middle - kept;
}

static int append(struct journal *j, const char *kind, const char *subject, uint64_t time_ns,
	json_int_t source, json_t *data)
{
	bound(j);
	return record_append(j->record,
		json_pack("{s:I, s:s, s:s, s:I, s:o*}", "time_ns", (json_int_t)time_ns, "kind",
			kind, "subject", subject, "source", source, "data", data),
		NULL);
}

int journal_add(struct journal *j, const char *kind, const char *subject, uint64_t time_ns,
	uint64_t source, json_t *data)
{
	int r = append(j, kind, subject, time_ns, (json_int_t)source, data);

	if (r == 0 && source > 0)
		note_taken(j, subject, source);
	return r;
}

uint64_t journal_wanted(const struct journal *j, const char *subject)
{
	return (uint64_t)json_integer_value(json_object_get(j->taken, subject)) + 1;
}

int journal_removed(struct journal *j, const char *subject, uint64_t time_ns)
{
	int r = append(j, "instance.removed", subject, time_ns, -1, NULL);

	if (r == 0)
		(void)json_object_del(j->taken, subject);
	return r;
}

struct batch {
	json_t *events;
	size_t bytes;
};

/* As the control plane wants them: without what is only ours. 1: enough. */
static int collect(uint64_t sequence, const json_t *entry, void *userdata)
{
	static const char *const names[] = {"sequence", "time_ns", "kind", "subject", "data"};
	CLEANUP_JSON json_t *event = json_object();
	struct batch *b = userdata;
	size_t n;

	(void)sequence;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		json_t *value = json_object_get(entry, names[i]);

		if (value && json_object_set(event, names[i], value) < 0)
			return -ENOMEM;
	}
	n = json_dumpb(event, NULL, 0, JSON_COMPACT);
	if (json_array_size(b->events) > 0 && b->bytes + n > JOURNAL_BATCH_BYTES)
		return 1;
	b->bytes += n;
	if (json_array_append(b->events, event) < 0)
		return -ENOMEM;
	return json_array_size(b->events) >= JOURNAL_BATCH_MAX;
}

json_t *journal_batch(struct journal *j)
{
	struct batch b = {.events = json_array()};

	if (!b.events || record_each(j->record, j->acknowledged + 1, collect, &b) < 0 ||
		json_array_size(b.events) == 0) {
		json_decref(b.events);
		return NULL;
	}
	return json_pack("{s:o}", "events", b.events);
}

int journal_acknowledge(struct journal *j, uint64_t sequence, struct err *e)
{
	uint64_t before = j->acknowledged;
	int r;

	if (sequence <= j->acknowledged || sequence >= record_next(j->record))
		return sequence == j->acknowledged
			       ? 0
			       : err_set(e, ERR_INVALID,
					 "the control plane acknowledged an event that it cannot "
					 "have");
	j->acknowledged = sequence;
	r = write_shipped(j, e);
	if (r < 0) {
		j->acknowledged = before;
		return r;
	}
	r = record_forget(j->record, sequence + 1);
	return r < 0 ? err_errno(e, r, "shorten the journal") : 0;
}

uint64_t journal_lost(const struct journal *j)
{
	return j->lost;
}
