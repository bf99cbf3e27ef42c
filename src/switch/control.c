/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One JSON object a line, request and answer, in order. The agent connects whenever it likes, and
 * again after its own restart; no guest notices.
 *
 * A configuration is first checked, then applied, then kept in config.json (written beside it,
 * synced, renamed), then acknowledged: a switch that is killed at any moment starts again with one
 * that was whole, and what was acknowledged is not forgotten.
 */
#include "switch/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/json.h"
#include "io/listen.h"
#include "io/loop.h"

#define CONFIG_NEW    CONTROL_CONFIG ".new"
#define READ_BLOCK    (64U << 10)
#define ANSWER_MAX    (8U << 20)
#define OPERATION_MAX 32

struct client {
	struct control *control;
	int fd; /* -1: free */
	sd_event_source *io;
	struct buf input, output;
	size_t scanned; /* bytes of input known to hold no line end */
};

struct control {
	sd_event *event;
	struct network *network;
	int fd;
	sd_event_source *io;
	struct client client[CONTROL_CLIENTS_MAX];
};

/* The configuration's copy. */

static int write_all(int fd, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, text, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		text += done;
		n -= (size_t)done;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

static int save(const json_t *document)
{
	CLEANUP_FREE char *text = json_dumps(document, JSON_INDENT(1));
	CLEANUP_CLOSE int folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
	int r;

	if (!text)
		return -ENOMEM;
	/* It holds keys. */
	fd = open(CONFIG_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (folder < 0 || fd < 0)
		return -errno;
	r = write_all(fd, text, strlen(text));
	if (r < 0)
		return r;
	if (rename(CONFIG_NEW, CONTROL_CONFIG) < 0 || fsync(folder) < 0)
		return -errno;
	return 0;
}

static int apply(struct control *c, json_t *document, struct err *e)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	int r = config_parse(document, &config, e);

	if (r < 0)
		return r;
	r = network_configure(c->network, config, e);
	if (r < 0)
		return r;
	config = NULL; /* the network's now */
	log_control(LOG_INFO, "configured", " revision=%" PRId64 " nics=%zu ports=%zu",
		c->network->config->revision, c->network->nic_count,
		c->network->config->port_count);
	return 0;
}

static int read_file(const char *path, struct buf *b, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char block[4096];
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_errno(e, -errno, "%s", path);
	while ((n = read(fd, block, sizeof(block))) > 0)
		if (buf_append(b, block, (size_t)n) < 0)
			return err_errno(e, buf_error(b), "%s", path);
	return n < 0 ? err_errno(e, -errno, "%s", path) : 0;
}

int control_load(struct control *c, struct err *e)
{
	const struct json_limits limits = {.max_bytes = CONFIG_BYTES};
	CLEANUP_BUF struct buf b = BUF_INIT(CONFIG_BYTES);
	CLEANUP_JSON json_t *document = NULL;
	int r = read_file(CONTROL_CONFIG, &b, e);

	if (r < 0 || b.size == 0)
		return r;
	r = json_parse(b.data, b.size, &limits, &document, e);
	return r < 0 ? r : apply(c, document, e);
}

/* Requests: each fills an error or returns 0. */

static int configure(struct control *c, json_t *document, struct err *e)
{
	int r = apply(c, document, e);

	if (r < 0)
		return r;
	r = save(document);
	return r < 0 ? err_errno(e, r, CONTROL_CONFIG) : 0;
}

static int run_configure(struct control *c, const json_t *request, struct err *e)
{
	const struct config *now = c->network->config;
	const json_t *document = NULL;
	int64_t revision = 0;
	int r = json_get_object(request, "config", &document, e);

	if (r == 0)
		r = json_get_integer(document, "revision", 0, INT64_MAX, &revision, e);
	if (r < 0)
		return r;
	if (now && revision < now->revision)
		return err_set(e, ERR_CONFLICT, "revision %" PRId64 " is older than %" PRId64,
			revision, now->revision);
	return configure(c, json_object_get(request, "config"), e);
}

/* The NICs of a document, without the one with this Ethernet address. */
static json_t *nics_without(const json_t *document, struct mac mac, bool *ret_found)
{
	json_t *nics = json_array(), *item;
	size_t i;

	*ret_found = false;
	json_array_foreach(json_object_get(json_object_get(document, "local"), "nics"), i, item)
	{
		const char *text = json_string_value(json_object_get(item, "mac"));
		struct mac other;

		if (text && mac_parse(text, &other) == 0 && mac_equal(mac, other))
			*ret_found = true;
		else
			(void)json_array_append(nics, item);
	}
	return nics;
}

/* The present configuration with one NIC replaced, added or (nic NULL) removed. */
static int change_nic(struct control *c, struct mac mac, json_t *nic, struct err *e)
{
	CLEANUP_JSON json_t *document = NULL;
	json_t *nics;
	bool found;

	if (!c->network->config)
		return err_set(e, ERR_CONFLICT, "the network is not configured yet");
	document = json_deep_copy(c->network->config->document);
	nics = nics_without(document, mac, &found);
	if (!nic && !found) {
		json_decref(nics);
		return err_set(e, ERR_NOT_FOUND, "there is no such NIC here");
	}
	if (nic)
		(void)json_array_append(nics, nic);
	if (json_object_set_new(json_object_get(document, "local"), "nics", nics) < 0)
		return err_errno(e, -ENOMEM, "NIC");
	return configure(c, document, e);
}

static int run_nic(struct control *c, const json_t *request, bool add, struct err *e)
{
	const json_t *nic = request;
	const char *text = "";
	struct mac mac;
	int r = add ? json_get_object(request, "nic", &nic, e) : 0;

	if (r == 0)
		r = json_get_string(nic, "mac", MAC_TEXT, &text, e);
	if (r < 0)
		return r;
	if (mac_parse(text, &mac) < 0)
		return err_set(e, ERR_INVALID, "field /mac is no Ethernet address");
	return change_nic(c, mac, add ? json_object_get(request, "nic") : NULL, e);
}

static int run_nic_add(struct control *c, const json_t *request, struct err *e)
{
	return run_nic(c, request, true, e);
}

static int run_nic_remove(struct control *c, const json_t *request, struct err *e)
{
	return run_nic(c, request, false, e);
}

static int run_status(struct control *c, const json_t *request, struct err *e)
{
	(void)c;
	(void)request;
	(void)e;
	return 0; /* what every answer says */
}

static const struct {
	const char *name;
	int (*run)(struct control *c, const json_t *request, struct err *e);
} operations[] = {
	{"configure", run_configure},
	{"nic-add", run_nic_add},
	{"nic-remove", run_nic_remove},
	{"status", run_status},
};

static json_t *answer(struct control *c, const char *line, size_t n)
{
	const struct json_limits limits = {.max_bytes = CONFIG_BYTES};
	CLEANUP_JSON json_t *request = NULL;
	const char *name = "";
	struct err e = {0};
	int r = json_parse(line, n, &limits, &request, &e);

	if (r == 0)
		r = json_get_string(request, "op", OPERATION_MAX, &name, &e);
	if (r < 0)
		return json_from_err(&e);
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		if (strcmp(operations[i].name, name) != 0)
			continue;
		r = operations[i].run(c, request, &e);
		return r < 0 ? json_from_err(&e) : network_status(c->network);
	}
	(void)err_set(&e, ERR_USAGE, "there is no operation \"%s\"", name);
	return json_from_err(&e);
}

/* Clients. */

static void drop_client(struct client *cl)
{
	loop_drop(&cl->io);
	if (cl->fd >= 0)
		(void)close(cl->fd);
	cl->fd = -1;
	buf_free(&cl->input);
	buf_free(&cl->output);
}

static int flush(struct client *cl)
{
	while (cl->output.size > 0) {
		ssize_t n = send(cl->fd, cl->output.data, cl->output.size, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		buf_consume(&cl->output, (size_t)n);
	}
	return sd_event_source_set_io_events(
		cl->io, cl->output.size > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static int answer_line(struct client *cl, size_t n)
{
	CLEANUP_JSON json_t *value = answer(cl->control, cl->input.data, n);
	CLEANUP_FREE char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

	if (!text)
		return -ENOMEM;
	(void)buf_puts(&cl->output, text);
	(void)buf_putc(&cl->output, '\n');
	buf_consume(&cl->input, n + 1);
	cl->scanned = 0;
	return buf_error(&cl->output);
}

static int take_lines(struct client *cl)
{
	for (;;) {
		char *end = cl->input.size > cl->scanned
				    ? memchr(cl->input.data + cl->scanned, '\n',
					      cl->input.size - cl->scanned)
				    : NULL;
		int r;

		if (!end) {
			cl->scanned = cl->input.size;
			return 0;
		}
		r = answer_line(cl, (size_t)(end - cl->input.data));
		if (r < 0)
			return r;
	}
}

static int receive(struct client *cl)
{
	char block[READ_BLOCK];
	ssize_t n = read(cl->fd, block, sizeof(block));
	int r;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	r = buf_append(&cl->input, block, (size_t)n);
	return r < 0 ? r : take_lines(cl);
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct client *cl = userdata;
	int r = 0;

	(void)source;
	(void)fd;
	if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
		r = receive(cl);
	if (r == 0)
		r = flush(cl);
	if (r < 0)
		drop_client(cl);
	return 0;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control *c = userdata;
	CLEANUP_CLOSE int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)source;
	(void)revents;
	for (size_t i = 0; client >= 0 && i < CONTROL_CLIENTS_MAX; i++) {
		struct client *cl = &c->client[i];

		if (cl->fd >= 0)
			continue;
		*cl = (struct client){.control = c,
			.fd = TAKE_FD(client),
			.input = BUF_INIT(CONFIG_BYTES + 1024),
			.output = BUF_INIT(ANSWER_MAX)};
		if (sd_event_add_io(c->event, &cl->io, cl->fd, EPOLLIN, on_client, cl) < 0)
			drop_client(cl);
		return 0;
	}
	return 0; /* too many: this one is closed */
}

void control_free(struct control *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		drop_client(&c->client[i]);
	loop_drop(&c->io);
	if (c->fd >= 0) {
		(void)close(c->fd);
		(void)unlink(CONTROL_SOCKET);
	}
	free(c);
}

int control_new(sd_event *event, struct network *network, struct control **ret, struct err *e)
{
	CLEANUP(control_free_p) struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_errno(e, -ENOMEM, "control socket");
	c->event = event;
	c->network = network;
	c->fd = -1;
	for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
		c->client[i].fd = -1;
	r = listen_unix(CONTROL_SOCKET, 0600, &c->fd, e);
	if (r < 0)
		return r;
	r = sd_event_add_io(event, &c->io, c->fd, EPOLLIN, on_connect, c);
	if (r < 0)
		return err_errno(e, r, "control socket");
	*ret = TAKE_PTR(c);
	return 0;
}
