/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A follower's side. A thread of its own sleeps until a member posts a request, since a futex
 * cannot be waited for in the event loop; everything else happens in the loop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/log.h"
#include "base/reader.h"
#include "valued/valued.h"

/* A request from a guest wakes nobody: it is seen at the next look. */
#define WATCH_NS NSEC_PER_MSEC

struct follower_side {
	struct valued *v;
	struct link *link;
	struct importer importer;
	sd_event_source *retry, *requests;
	uint64_t retry_ns;
	uint64_t conflicts_told;
	int wake; /* eventfd: a request was posted */
	struct buf up;
};

static int connect_source(struct follower_side *side);

static int send_entries(struct follower_side *side)
{
	uint8_t type = MESSAGE_ENTRIES;
	CLEANUP_BUF struct buf message = BUF_INIT(LINK_MESSAGE_MAX);
	int r = buf_append(&message, &type, 1);

	if (r == 0)
		r = buf_append(&message, side->up.data, side->up.size);
	buf_reset(&side->up);
	return r < 0 ? r : link_send(side->link, message.data, message.size);
}

static void pass_requests_on(struct follower_side *side)
{
	const struct segment *s = &side->v->group->segment;
	struct request r;

	/* While there is no link they stay where they are, in the members' memory. */
	while (side->link && link_is_ready(side->link) && side->up.size <= REPLICA_BATCH_BYTES &&
		request_take(s, &r)) {
		size_t before = side->up.size;

		/* A request that makes no sense is its poster's own trouble: nothing of it is sent.
		 */
		if (importer_put_request(&side->importer, &side->up, &r) < 0) {
			side->up.size = before;
			side->up.error = 0;
		}
	}
	if (side->up.size > 0 && side->link && link_is_ready(side->link))
		(void)send_entries(side);
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	uint64_t count;

	(void)source;
	(void)events;
	if (read(fd, &count, sizeof(count)) == sizeof(count))
		pass_requests_on(userdata);
	return 0;
}

static void *watch(void *userdata)
{
	struct follower_side *side = userdata;
	struct segment_header *h = segment_header(&side->v->group->segment);
	const struct timespec limit = {.tv_nsec = WATCH_NS};
	uint32_t seen = atomic_load(&h->posted);
	const uint64_t one = 1;

	for (;;) {
		uint32_t now;

		(void)syscall(SYS_futex, &h->posted, FUTEX_WAIT, seen, &limit, NULL, 0);
		now = atomic_load(&h->posted);
		if (now == seen)
			continue;
		seen = now;
		if (write(side->wake, &one, sizeof(one)) < 0)
			return NULL;
	}
}

static int say_have(struct follower_side *side)
{
	const uint8_t begin = MESSAGE_BEGIN;
	struct entry_walk w = {0};
	bool more = true;
	int r = 0;

	buf_reset(&side->up);
	while (r == 0 && more) {
		r = importer_put_have(&side->importer, &w, &side->up, &more);
		if (r == 0 && side->up.size > 0)
			r = send_entries(side);
	}
	return r < 0 ? r : link_send(side->link, &begin, sizeof(begin));
}

static void on_ready(void *context, struct link *link)
{
	struct follower_side *side = context;
	int r;

	(void)link;
	side->retry_ns = RECONNECT_MIN_NS;
	log_control(LOG_INFO, "connected to the source", NULL);
	r = say_have(side);
	if (r < 0)
		log_control(
			LOG_ERROR, "cannot say what is here", " error=%s", log_quote(strerror(-r)));
	pass_requests_on(side);
}

static int apply(struct follower_side *side, struct reader *r)
{
	struct segment_header *h = segment_header(&side->v->group->segment);
	uint8_t ack[9] = {MESSAGE_ACK};
	uint64_t sequence = reader_u64(r);
	int result = r->failed ? -EBADMSG : importer_apply(&side->importer, r->at, r->left);

	if (result < 0) {
		log_control(LOG_ERROR, "cannot apply the source's log", " error=%s",
			log_quote(strerror(-result)));
		return result;
	}
	if (side->importer.filler.conflicts > side->conflicts_told) {
		side->conflicts_told = side->importer.filler.conflicts;
		log_control(LOG_ERROR, "values here that the source does not have", " count=%llu",
			(unsigned long long)side->conflicts_told);
	}
	atomic_fetch_add(&h->arrived, 1);
	(void)syscall(SYS_futex, &h->arrived, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
	put_u64(ack + 1, sequence);
	(void)link_send(side->link, ack, sizeof(ack));
	return 0;
}

static int on_message(void *context, struct link *link, const uint8_t *bytes, size_t n)
{
	struct reader r = reader_init(bytes, n);

	(void)link;
	return reader_u8(&r) == MESSAGE_LOG ? apply(context, &r) : -EBADMSG;
}

static void on_closed(void *context, struct link *link, const char *why)
{
	struct follower_side *side = context;

	(void)link;
	log_control(LOG_WARNING, "the source is not there", " why=%s", log_quote(why));
	importer_free(&side->importer);
	side->link = NULL;
	(void)loop_rearm(side->retry, side->retry_ns);
	side->retry_ns = MIN(2 * side->retry_ns, RECONNECT_MAX_NS);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct follower_side *side = userdata;

	(void)source;
	(void)usec;
	if (!side->link && connect_source(side) < 0)
		(void)loop_rearm(side->retry, side->retry_ns);
	return 0;
}

static int connect_source(struct follower_side *side)
{
	const struct link_callbacks callbacks = {side, on_ready, on_message, on_closed};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(side->v->source_port)};
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0 || inet_pton(AF_INET, side->v->source_address, &to.sin_addr) != 1)
		return -EINVAL;
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return -errno;
	importer_init(&side->importer, &side->v->group->segment);
	r = link_new(side->v->event, TAKE_FD(fd), true, side->v->key, side->v->group->name,
		&callbacks, &side->link);
	if (r < 0)
		importer_free(&side->importer);
	return r;
}

/* A thread that no signal of the loop's can reach. */
static int start_watch(struct follower_side *side)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, watch, side);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		(void)pthread_detach(thread);
	return -r;
}

int follower_start(struct valued *v)
{
	static struct follower_side side; /* a process has one */
	int r;

	side.v = v;
	side.retry_ns = RECONNECT_MIN_NS;
	side.up = BUF_INIT(REPLICA_BATCH_MAX);
	atomic_store(&segment_header(&v->group->segment)->role, ROLE_FOLLOWER);
	side.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (side.wake < 0)
		return -errno;
	r = sd_event_add_io(v->event, &side.requests, side.wake, EPOLLIN, on_wake, &side);
	if (r >= 0)
		r = loop_after(v->event, 0, on_retry, &side, &side.retry);
	if (r >= 0)
		r = start_watch(&side);
	return r < 0 ? r : 0;
}
