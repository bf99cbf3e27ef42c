/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "io/listen.h"
#include "valued/valued.h"

static const char help[] =
	"usage: sosie-valued --group GROUP --key-file FILE (--listen ADDRESS:PORT | "
	"--source ADDRESS:PORT)\n"
	"\n"
	"Records what a group's members on this host consume, and shares its values with other\n"
	"hosts: as the source (--listen), or as a follower of one (--source).\n"
	"\n"
	"  --group GROUP            the group; made when it does not exist\n"
	"  --key-file FILE          64 hexadecimal digits that all hosts of the group share\n"
	"  --listen ADDRESS:PORT    be the source; port 0: any; prints 'listening on "
	"ADDRESS:PORT'\n"
	"  --source ADDRESS:PORT    follow the source there\n"
	"  --state DIRECTORY        where groups are kept (default: SOSIE_STATE_DIR)\n"
	"\n"
	"example, two hosts on one machine:\n"
	"  openssl rand -hex 32 > key\n"
	"  sosie-valued --state a --group g --key-file key --listen 127.0.0.1:7001 &\n"
	"  sosie-valued --state b --group g --key-file key --source 127.0.0.1:7001 &\n"
	"  SOSIE_STATE_DIR=a sosie run -g g -- uuidgen; SOSIE_STATE_DIR=b sosie run -g g -- "
	"uuidgen\n";

static int read_key(const char *path, uint8_t key[LINK_KEY], struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[2 * LINK_KEY + 2];
	ssize_t n;

	if (fd < 0)
		return err_errno(e, -errno, "open %s", path);
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return err_errno(e, -errno, "read %s", path);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (hex_decode(text, key, LINK_KEY) < 0) {
		(void)err_set(e, ERR_INVALID, "%s does not hold %d hexadecimal digits", path,
			2 * LINK_KEY);
		return err_hint(e, "make one: openssl rand -hex %d > %s", LINK_KEY, path);
	}
	sodium_memzero(text, sizeof(text));
	return 0;
}

/* ADDRESS:PORT */
static int split_address(
	const char *text, char *address, size_t size, uint16_t *ret_port, struct err *e)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;

	if (!colon || (size_t)(colon - text) >= size || parse_u64(colon + 1, UINT16_MAX, &port) < 0)
		return err_set(e, ERR_USAGE, "'%s' is not ADDRESS:PORT", text);
	(void)snprintf(address, size, "%.*s", (int)(colon - text), text);
	*ret_port = (uint16_t)port;
	return 0;
}

struct arguments {
	const char *group, *key_file, *listen, *source;
};

static int parse(int argc, char **argv, struct arguments *a, struct err *e)
{
	static const struct option options[] = {
		{"group", required_argument, NULL, 'g'},
		{"key-file", required_argument, NULL, 'k'},
		{"listen", required_argument, NULL, 'l'},
		{"source", required_argument, NULL, 's'},
		{"state", required_argument, NULL, 'd'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'g':
			a->group = optarg;
			break;
		case 'k':
			a->key_file = optarg;
			break;
		case 'l':
			a->listen = optarg;
			break;
		case 's':
			a->source = optarg;
			break;
		case 'd':
			if (setenv("SOSIE_STATE_DIR", optarg, 1) < 0)
				return err_errno(e, -errno, "set the state folder");
			break;
		case 'h':
			(void)fputs(help, stdout);
			return 1;
		default:
			(void)err_set(e, ERR_USAGE, "the command line is not understood");
			return err_hint(e, "sosie-valued --help explains it");
		}
	}
	if (optind < argc || !a->group || !a->key_file || !a->listen == !a->source) {
		(void)err_set(
			e, ERR_USAGE, "needs --group, --key-file, and either --listen or --source");
		return err_hint(e, "sosie-valued --help explains them");
	}
	return 0;
}

struct recording {
	struct recorder recorder;
	struct group *group;
	bool open;
	unsigned int wait; /* looks until the lock is tried again */
};

/* Somebody else may be recording, such as a recorder that `sosie run` has started. */
static int on_record(void *userdata)
{
	struct recording *r = userdata;
	struct err e = {0};
	unsigned int running;

	if (!r->open) {
		if (r->wait > 0) {
			r->wait--;
			return 0;
		}
		r->open = recorder_open(r->group, &r->recorder, &e) == 0;
		r->wait = 50;
		return 0;
	}
	if (recorder_look(&r->recorder, &running, &e) < 0) {
		log_data(LOG_ERROR, "cannot record", " error=%s", log_quote(e.message));
		recorder_close(&r->recorder);
		r->open = false;
		r->wait = 100;
	}
	return 0;
}

static int set_up(struct valued *v, const struct arguments *a, struct err *e)
{
	char address[64];
	uint16_t port;
	int fd, r;

	assert(a->key_file && (a->listen || a->source)); /* parse() has seen to it */
	r = read_key(a->key_file, v->key, e);
	if (r == 0)
		r = group_open_or_create(a->group, &v->group, e);
	if (r < 0)
		return r;
	if (a->source) {
		r = split_address(a->source, v->source_address, sizeof(v->source_address),
			&v->source_port, e);
		if (r == 0)
			r = follower_start(v);
		return r < 0 && e->code == ERR_NONE ? err_errno(e, r, "follow %s", a->source) : r;
	}
	r = split_address(a->listen, address, sizeof(address), &port, e);
	if (r == 0)
		r = listen_tcp(address, port, &fd, &port, e);
	if (r < 0)
		return r;
	r = source_start(v, fd);
	if (r < 0)
		return err_errno(e, r, "be the source of %s", a->group);
	(void)printf("listening on %s:%u\n", address, port);
	(void)fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	static struct recording recording;
	CLEANUP_EVENT sd_event *event = NULL;
	CLEANUP_SOURCE sd_event_source *record = NULL;
	struct arguments a = {0};
	struct valued v = {0};
	struct err e = {0};
	int r = parse(argc, argv, &a, &e);

	if (r > 0)
		return 0;
	log_init("sosie-valued");
	if (r == 0 && sodium_init() < 0)
		r = err_set(&e, ERR_INTERNAL, "libsodium does not start");
	if (r == 0 && (r = loop_new(&event)) < 0)
		r = err_errno(&e, r, "make an event loop");
	v.event = event;
	if (r == 0)
		r = set_up(&v, &a, &e);
	recording.group = v.group;
	if (r == 0 && loop_every(event, RECORDER_PERIOD_NS, on_record, &recording, &record) < 0)
		r = err_set(&e, ERR_INTERNAL, "cannot set a timer");
	if (r < 0) {
		(void)fprintf(stderr, "sosie-valued: %s\n", e.message);
		if (e.hint[0])
			(void)fprintf(stderr, "hint: %s\n", e.hint);
		return err_exit_status(e.code);
	}
	log_control(LOG_INFO, "running", " group=%s role=%s", a.group,
		a.source ? "follower" : "source");
	r = loop_run(event);
	if (recording.open)
		recorder_close(&recording.recorder);
	(void)group_close(v.group);
	return r < 0;
}
