/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames are taken out of what one read(2) brought in place, and collected for one write(2) at the
 * end of the loop's turn. A guest that does not read fills its own queue, whose overflow is
 * dropped, as a cable would.
 *
 * When the connection ends, what is queued goes with it: the next one must begin with a whole
 * frame, and the other side may be another QEMU.
 */
#include "switch/nic.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/reader.h"
#include "io/listen.h"
#include "io/loop.h"

#define LENGTH_SIZE    4
#define INPUT_BYTES    ((64U << 10) + LENGTH_SIZE + FRAME_MAX)
#define READS_MAX      4 /* at one wake-up, so that one guest does not starve the others */
#define RETRY_FIRST_NS (20 * NSEC_PER_MSEC)
#define RETRY_LAST_NS  (500 * NSEC_PER_MSEC)

static void disconnect(struct nic *nic)
{
	if (nic->fd < 0)
		return;
	loop_drop(&nic->io);
	(void)close(nic->fd);
	nic->fd = -1;
	nic->input_size = nic->queue_start = nic->queue_end = 0;
	nic->blocked = false;
	nic->retry_ns = RETRY_FIRST_NS;
	log_control(LOG_INFO, "NIC disconnected", " socket=%s", log_quote(nic->path));
	if (loop_rearm(nic->retry, nic->retry_ns) < 0)
		log_control(LOG_ERROR, "cannot retry NIC", " socket=%s", log_quote(nic->path));
}

static void flush(struct nic *nic)
{
	while (nic->queue_start < nic->queue_end) {
		ssize_t n = send(nic->fd, nic->queue + nic->queue_start,
			nic->queue_end - nic->queue_start, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			disconnect(nic);
			return;
		}
		if (n < 0)
			break;
		nic->queue_start += (size_t)n;
	}
	if (nic->queue_start == nic->queue_end)
		nic->queue_start = nic->queue_end = 0;
	if (nic->blocked != (nic->queue_end > 0)) {
		nic->blocked = !nic->blocked;
		(void)sd_event_source_set_io_events(
			nic->io, nic->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
	}
}

static int on_flush(sd_event_source *source, void *userdata)
{
	struct nic *nic = userdata;

	(void)source;
	if (nic->fd >= 0 && !nic->blocked)
		flush(nic);
	return 0;
}

void nic_send(struct nic *nic, const uint8_t *frame, size_t n)
{
	uint8_t *at;

	if (nic->fd < 0) {
		nic->counters.not_connected++;
		return;
	}
	if (nic->queue_end + LENGTH_SIZE + n > NIC_QUEUE_BYTES) {
		memmove(nic->queue, nic->queue + nic->queue_start,
			nic->queue_end - nic->queue_start);
		nic->queue_end -= nic->queue_start;
		nic->queue_start = 0;
	}
	if (nic->queue_end + LENGTH_SIZE + n > NIC_QUEUE_BYTES) {
		nic->counters.queue_full++;
		return;
	}
	if (nic->queue_end == 0)
		(void)sd_event_source_set_enabled(nic->flush, SD_EVENT_ONESHOT);
	at = nic->queue + nic->queue_end;
	put_u32_be(at, (uint32_t)n);
	memcpy(at + LENGTH_SIZE, frame, n);
	nic->queue_end += LENGTH_SIZE + n;
	nic->counters.to_frames++;
	nic->counters.to_bytes += n;
}

/* Hands over the whole frames of the input. -EBADMSG when a length is impossible. */
static int take_frames(struct nic *nic)
{
	size_t at = 0;

	while (nic->input_size - at >= LENGTH_SIZE) {
		struct reader r = reader_init(nic->input + at, nic->input_size - at);
		uint32_t n = reader_u32_be(&r);

		if (n > FRAME_MAX)
			return -EBADMSG;
		if (!reader_bytes(&r, n))
			break;
		nic->counters.from_frames++;
		nic->counters.from_bytes += n;
		nic->on_frame(nic, nic->input + at + LENGTH_SIZE, n, nic->userdata);
		at += LENGTH_SIZE + n;
	}
	memmove(nic->input, nic->input + at, nic->input_size - at);
	nic->input_size -= at;
	return 0;
}

static void receive(struct nic *nic)
{
	for (int i = 0; i < READS_MAX; i++) {
		size_t room = INPUT_BYTES - nic->input_size;
		ssize_t n = read(nic->fd, nic->input + nic->input_size, room);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			disconnect(nic);
			return;
		}
		nic->input_size += (size_t)n;
		if (take_frames(nic) < 0) {
			nic->counters.broken_stream++;
			disconnect(nic);
			return;
		}
		if ((size_t)n < room)
			return;
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct nic *nic = userdata;

	(void)source;
	(void)fd;
	if (revents & EPOLLOUT)
		flush(nic);
	if (nic->fd >= 0 && revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(nic);
	return 0;
}

static void try_connect(struct nic *nic)
{
	int r = connect_unix(nic->path, &nic->fd, NULL);

	if (r == 0) {
		r = sd_event_add_io(nic->event, &nic->io, nic->fd, EPOLLIN, on_io, nic);
		if (r >= 0) {
			nic->counters.connects++;
			log_control(LOG_INFO, "NIC connected", " socket=%s", log_quote(nic->path));
			return;
		}
		(void)close(nic->fd);
		nic->fd = -1;
	}
	if (loop_rearm(nic->retry, nic->retry_ns) < 0)
		log_control(LOG_ERROR, "cannot retry NIC", " socket=%s", log_quote(nic->path));
	nic->retry_ns = MIN(2 * nic->retry_ns, (uint64_t)RETRY_LAST_NS);
}

static int on_retry(sd_event_source *source, uint64_t planned, void *userdata)
{
	(void)source;
	(void)planned;
	try_connect(userdata);
	return 0;
}

void nic_free(struct nic *nic)
{
	if (!nic)
		return;
	loop_drop(&nic->io);
	loop_drop(&nic->retry);
	loop_drop(&nic->flush);
	if (nic->fd >= 0)
		(void)close(nic->fd);
	connections_free(nic->connections);
	free(nic->input);
	free(nic->queue);
	free(nic);
}

static int set_up(struct nic *nic, const char *path, const uint8_t key[16])
{
	int r;

	nic->input = malloc(INPUT_BYTES);
	nic->queue = malloc(NIC_QUEUE_BYTES);
	if (!nic->input || !nic->queue)
		return -ENOMEM;
	if (strlen(path) >= sizeof(nic->path))
		return -ENAMETOOLONG;
	(void)snprintf(nic->path, sizeof(nic->path), "%s", path);
	r = connections_new(key, &nic->connections);
	if (r < 0)
		return r;
	r = sd_event_add_defer(nic->event, &nic->flush, on_flush, nic);
	if (r >= 0)
		r = loop_after(nic->event, 0, on_retry, nic, &nic->retry);
	return MIN(r, 0);
}

int nic_new(sd_event *event, const char *path, const uint8_t key[16], nic_frame_fn on_frame,
	void *userdata, struct nic **ret)
{
	struct nic *nic = calloc(1, sizeof(*nic));
	int r;

	if (!nic)
		return -ENOMEM;
	nic->fd = -1;
	nic->event = event;
	nic->on_frame = on_frame;
	nic->userdata = userdata;
	nic->retry_ns = RETRY_FIRST_NS;
	r = set_up(nic, path, key);
	if (r < 0) {
		nic_free(nic);
		return r;
	}
	*ret = nic;
	return 0;
}
