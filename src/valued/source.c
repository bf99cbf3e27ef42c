/* SPDX-License-Identifier: Apache-2.0 */
/* The source's side: one exporter a follower, and one filler for what they propose. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "base/reader.h"
#include "base/source.h"
#include "valued/valued.h"

struct follower {
	struct source_side *side;
	struct link *link;
	struct exporter exporter;
	bool begun; /* it has said what it holds */
	uint64_t sequence, acknowledged;
};

struct source_side {
	struct valued *v;
	int listen_fd;
	sd_event_source *accept, *look;
	struct filler filler;
	struct follower followers[FOLLOWERS_MAX];
	struct buf batch;
	uint64_t busy_until; /* CLOCK_MONOTONIC ns */
};

static uint64_t monotonic(void)
{
	return source_system.clock_ns(NULL, CLOCK_MONOTONIC);
}

/* Sends one follower what is new. Returns whether there was anything. */
static bool send_news(struct follower *f)
{
	struct buf *b = &f->side->batch;
	bool more = true, any = false;

	while (more && f->begun && link_backlog(f->link) < SEND_AHEAD) {
		uint8_t head[9] = {MESSAGE_LOG};
		int r;

		put_u64(head + 1, f->sequence + 1);
		buf_reset(b);
		(void)buf_append(b, head, sizeof(head));
		r = exporter_fill(&f->exporter, b, &more);
		if (r < 0) {
			log_control(LOG_ERROR, "cannot read the log", " error=%s",
				log_quote(strerror(-r)));
			return any;
		}
		if (b->size == sizeof(head))
			return any;
		f->sequence++;
		any = true;
		if (link_send(f->link, b->data, b->size) < 0)
			return any;
	}
	return any;
}

static void look(struct source_side *side)
{
	uint64_t now = monotonic();
	bool any = false;

	for (size_t i = 0; i < FOLLOWERS_MAX; i++)
		if (side->followers[i].link && link_is_ready(side->followers[i].link))
			any |= send_news(&side->followers[i]);
	if (any)
		side->busy_until = now + BUSY_FOR_NS;
	(void)loop_rearm(side->look, now < side->busy_until ? LOOK_BUSY_NS : LOOK_IDLE_NS);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	look(userdata);
	return 0;
}

static void on_ready(void *context, struct link *link)
{
	(void)context;
	(void)link;
	log_control(LOG_INFO, "a follower has connected", NULL);
}

static int on_message(void *context, struct link *link, const uint8_t *bytes, size_t n)
{
	struct follower *f = context;
	struct reader r = reader_init(bytes, n);
	uint8_t type = reader_u8(&r);
	uint64_t sequence;
	int result;

	(void)link;
	switch (type) {
	case MESSAGE_ACK:
		sequence = reader_u64(&r);
		if (r.failed || sequence > f->sequence || sequence < f->acknowledged)
			return -EBADMSG;
		f->acknowledged = sequence;
		return 0;
	case MESSAGE_BEGIN:
		f->begun = true;
		look(f->side);
		return 0;
	case MESSAGE_ENTRIES:
		result = exporter_take(&f->exporter, &f->side->filler, r.at, r.left);
		if (result < 0)
			return result;
		/* Somebody waits for the answer. */
		look(f->side);
		return 0;
	default:
		return -EBADMSG;
	}
}

static void on_closed(void *context, struct link *link, const char *why)
{
	struct follower *f = context;

	(void)link;
	log_control(LOG_WARNING, "a follower is gone", " why=%s sent=%llu acknowledged=%llu",
		log_quote(why), (unsigned long long)f->sequence,
		(unsigned long long)f->acknowledged);
	exporter_free(&f->exporter);
	*f = (struct follower){.side = f->side};
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct source_side *side = userdata;
	struct link_callbacks callbacks = {
		.ready = on_ready, .message = on_message, .closed = on_closed};
	struct follower *f = NULL;
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)source;
	(void)events;
	if (connection < 0)
		return 0;
	for (size_t i = 0; i < FOLLOWERS_MAX && !f; i++)
		if (!side->followers[i].link)
			f = &side->followers[i];
	if (!f) {
		log_control(LOG_WARNING, "too many followers", NULL);
		(void)close(connection);
		return 0;
	}
	callbacks.context = f;
	exporter_init(&f->exporter, &side->v->group->segment);
	if (link_new(side->v->event, connection, false, side->v->key, side->v->group->name,
		    &callbacks, &f->link) < 0)
		exporter_free(&f->exporter);
	return 0;
}

int source_start(struct valued *v, int listen_fd)
{
	static struct source_side side; /* a process has one */
	const struct segment *s = &v->group->segment;
	struct segment_header *h = segment_header(s);
	struct member *m = member_add(s, LINK_MEMBER);
	int r;

	/* A group that was never another's follower keeps its creator's clocks. */
	if (!m || (segment_set_frame(s, &h->created) < 0))
		return -ENOSPC;
	/* No process of its own: it counts as ended. */
	atomic_store(&m->state, MEMBER_ENDED);
	side.v = v;
	side.listen_fd = listen_fd;
	side.batch = BUF_INIT(REPLICA_BATCH_MAX + 16);
	filler_init(&side.filler, s, m);
	for (size_t i = 0; i < FOLLOWERS_MAX; i++)
		side.followers[i].side = &side;
	/* From here on this host's members fill slots themselves. */
	atomic_store(&h->role, ROLE_SOURCE);
	atomic_fetch_add(&h->arrived, 1);
	r = sd_event_add_io(v->event, &side.accept, listen_fd, EPOLLIN, on_accept, &side);
	if (r >= 0)
		r = loop_after(v->event, LOOK_IDLE_NS, on_look, &side, &side.look);
	return r < 0 ? r : 0;
}
