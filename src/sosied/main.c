/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/str.h"
#include "sosied/call.h"
#include "sosied/dispatch.h"
#include "sosied/feed.h"
#include "sosied/images.h"
#include "sosied/limit.h"
#include "sosied/networks.h"
#include "sosied/sessions.h"

#define CONNECTIONS_MAX  2048
#define HOST_TIMEOUT_MAX 3600
#define RATE_MAX         1000000
#define LISTEN_DEFAULT   "127.0.0.1:7443"

static const char help[] =
	"The control plane of Sosie: its API, its store and its controllers.\n"
	"\n"
	"usage: sosied --state DIR [OPTIONS]\n"
	"\n"
	"  --state DIR              where everything is kept; made when missing\n"
	"  --listen WHERE           ADDRESS:PORT (port 0: one that is free) or unix:PATH\n"
	"                           (default " LISTEN_DEFAULT ")\n"
	"  --tls-cert FILE          PEM chain, with --tls-key: speak https\n"
	"  --tls-key FILE           its key\n"
	"  --admin-token-file FILE  keeps an admin token of the provider there, made when missing\n"
	"  --host-timeout SECONDS   silence after which a host is offline (default 15)\n"
	"  --rate N                 requests a second that one token may make (default 500)\n"
	"  --help, --version\n"
	"\n"
	"Where it listens is printed as one line on standard output. SIGTERM ends it; nothing "
	"that\n"
	"was acknowledged is lost, however it ends.\n"
	"\n"
	"examples:\n"
	"  sosied --state /var/lib/sosie --listen 192.0.2.1:7443 --tls-cert c.pem --tls-key k.pem\n"
	"  sosied --state ./state --listen unix:./state/api.sock --admin-token-file "
	"./state/token\n";

struct options {
	const char *state, *listen, *tls_cert, *tls_key, *admin_token_file;
	uint64_t host_timeout_s, rate;
};

/* 1 when there is nothing more to do. */
static int parse_options(int argc, char **argv, struct options *o, struct err *e)
{
	static const struct option known[] = {{"state", 1, NULL, 's'}, {"listen", 1, NULL, 'l'},
		{"tls-cert", 1, NULL, 'c'}, {"tls-key", 1, NULL, 'k'},
		{"admin-token-file", 1, NULL, 'a'}, {"host-timeout", 1, NULL, 't'},
		{"rate", 1, NULL, 'r'}, {"help", 0, NULL, 'h'}, {"version", 0, NULL, 'v'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (c) {
		case 's':
			o->state = optarg;
			break;
		case 'l':
			o->listen = optarg;
			break;
		case 'c':
			o->tls_cert = optarg;
			break;
		case 'k':
			o->tls_key = optarg;
			break;
		case 'a':
			o->admin_token_file = optarg;
			break;
		case 't':
			if (parse_u64(optarg, HOST_TIMEOUT_MAX, &o->host_timeout_s) < 0 ||
				o->host_timeout_s == 0)
				return err_set(e, ERR_INVALID, "--host-timeout is from 1 to %d",
					HOST_TIMEOUT_MAX);
			break;
		case 'r':
			if (parse_u64(optarg, RATE_MAX, &o->rate) < 0 || o->rate == 0)
				return err_set(e, ERR_INVALID, "--rate is from 1 to %d", RATE_MAX);
			break;
		case 'h':
			(void)fputs(help, stdout);
			return 1;
		case 'v':
			(void)puts("sosied " SOSIE_VERSION);
			return 1;
		default:
			return err_set(e, ERR_USAGE, "'sosied --help' explains the options");
		}
	}
	if (optind < argc)
		return err_set(e, ERR_USAGE, "one argument too many: '%s'", argv[optind]);
	return o->state ? 0 : err_set(e, ERR_USAGE, "--state is needed");
}

/* The state folder, ours alone: *ret_lock is held while the process lives. */
static int open_state(struct sosied *d, const char *state, char *path, int *ret_lock, struct err *e)
{
	CLEANUP_CLOSE int lock = -1;
	char name[PATH_MAX];
	int r = make_directories(state, 0700);

	if (r == 0 && !realpath(state, path))
		r = -errno;
	if (r == 0)
		r = path_join(d->images, sizeof(d->images), path, "images");
	if (r == 0)
		r = make_directories(d->images, 0700);
	if (r == 0)
		r = path_join(name, sizeof(name), path, "sosied.lock");
	if (r == 0) {
		lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		r = lock < 0 ? -errno : 0;
	}
	if (r < 0)
		return err_errno(e, r, "use the state folder %s", state);
	if (flock(lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "another sosied uses %s", state);
	*ret_lock = TAKE_FD(lock);
	return 0;
}

static int open_store(struct sosied *d, const char *state, struct err *e)
{
	char url[PATH_MAX + sizeof("sqlite:/store.db")];

	(void)snprintf(url, sizeof(url), "sqlite:%s/store.db", state);
	return store_open(url, 0, d->source, &d->store, e);
}

static int make_default_tenant(struct sosied *d, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_tenant tenant = {0};
	struct err why = {0};
	int r = store_begin(d->store, STORE_WRITE, &t, e);

	if (r < 0)
		return r;
	r = store_tenant_by_name(d->store, DEFAULT_TENANT, &tenant, &why);
	if (r == 0)
		return 0;
	if (why.code != ERR_NOT_FOUND) {
		*e = why;
		return r;
	}
	r = tenant_create(d->store, d->source, DEFAULT_TENANT, &tenant, e);
	return r < 0 ? r : store_commit(&t, e);
}

/* Writes the secret where nobody else can read it, whole or not at all. */
static int write_secret(const char *path, const char *secret, struct err *e)
{
	char name[PATH_MAX];
	CLEANUP_CLOSE int fd = -1;
	ssize_t n = (ssize_t)strlen(secret);

	if (snprintf(name, sizeof(name), "%s.new", path) >= (int)sizeof(name))
		return err_errno(e, -ENAMETOOLONG, "write %s", path);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, secret, (size_t)n) != n || fsync(fd) < 0 || rename(name, path) < 0)
		return err_errno(e, errno ? -errno : -EIO, "write %s", path);
	return 0;
}

static int keep_admin_token(struct sosied *d, const char *path, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	struct store_token token = {.role = STORE_ROLE_ADMIN, .comment = "made at the start"};
	char secret[SECRET_SIZE];
	int r;

	if (access(path, F_OK) == 0)
		return 0;
	r = secret_new(d, secret, token.hash, e);
	if (r == 0)
		r = store_begin(d->store, STORE_WRITE, &t, e);
	if (r == 0)
		r = store_token_create(d->store, &token, e);
	/* A token that nobody can read is worth less than a file that says nothing yet. */
	if (r == 0)
		r = store_commit(&t, e);
	if (r == 0)
		r = write_secret(path, secret, e);
	explicit_bzero(secret, sizeof(secret));
	return r;
}

/* Splits "ADDRESS:PORT", "[ADDRESS]:PORT" or "unix:PATH". */
static int parse_listen(
	const char *text, char *address, size_t size, struct http_server_options *o, struct err *e)
{
	const char *colon = strrchr(text, ':');
	bool brackets = text[0] == '[';
	size_t n;
	uint64_t port;

	if (str_starts_with(text, "unix:") && text[5]) {
		o->unix_path = text + 5;
		return 0;
	}
	n = colon ? (size_t)(colon - text) : 0;
	if (brackets && n >= 2 && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n == 0 || n >= size || parse_u64(colon + 1, UINT16_MAX, &port) < 0) {
		(void)err_set(e, ERR_INVALID, "--listen takes ADDRESS:PORT or unix:PATH");
		return err_hint(e, "such as 127.0.0.1:0 or unix:/run/sosie/api.sock");
	}
	memcpy(address, text, n);
	address[n] = '\0';
	o->address = address;
	o->port = (uint16_t)port;
	return 0;
}

static int listen_for_requests(struct sosied *d, const struct options *o, struct err *e)
{
	struct http_server_options http = {.max_body = REQUEST_BODY_MAX,
		.max_connections = CONNECTIONS_MAX,
		.tls_cert_file = o->tls_cert,
		.tls_key_file = o->tls_key,
		.head = dispatch_head};
	bool tls = o->tls_cert != NULL;
	char address[64];
	int r = parse_listen(o->listen, address, sizeof(address), &http, e);

	if (r == 0)
		r = http_server_new(d->event, &http, dispatch_request, d, &d->server, e);
	if (r < 0)
		return r;
	if (http.unix_path)
		(void)printf("sosied listens on unix:%s\n", http.unix_path);
	else
		(void)printf("sosied listens on http%s://%s%s%s:%u\n", tls ? "s" : "",
			strchr(address, ':') ? "[" : "", address, strchr(address, ':') ? "]" : "",
			http_server_port(d->server));
	if (fflush(stdout) != 0)
		return err_errno(e, -errno, "say where it listens");
	return 0;
}

static void stop(struct sosied *d)
{
	/* First the server: whoever waits is told by its callbacks. */
	http_server_free(d->server);
	control_free(d->control);
	sessions_free(d->sessions);
	feed_free(d->feed);
	digests_free(d->digests);
	limiter_free(d->limiter);
	store_close(d->store);
	(void)sd_event_unref(d->event);
}

static int start(struct sosied *d, const struct options *o, int *ret_lock, struct err *e)
{
	char state[PATH_MAX];
	int r = loop_new(&d->event);

	if (r < 0)
		return err_errno(e, r, "make a loop");
	r = open_state(d, o->state, state, ret_lock, e);
	if (r == 0)
		r = open_store(d, state, e);
	if (r == 0)
		r = make_default_tenant(d, e);
	if (r == 0 && o->admin_token_file)
		r = keep_admin_token(d, o->admin_token_file, e);
	d->started_ns = realtime_ns(d);
	d->host_timeout_ns = o->host_timeout_s * NSEC_PER_SEC;
	d->limiter = limiter_new((unsigned int)o->rate);
	if (r == 0 && !d->limiter)
		r = err_errno(e, -ENOMEM, "start");
	if (r == 0)
		r = feed_new(d, e);
	if (r == 0)
		r = sessions_new(d, e);
	if (r == 0)
		r = digests_start(d, e);
	if (r == 0)
		r = control_start(d, e);
	return r < 0 ? r : listen_for_requests(d, o, e);
}

static void allow_many_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct options o = {.listen = LISTEN_DEFAULT,
		.host_timeout_s = HOST_TIMEOUT_DEFAULT_S,
		.rate = RATE_DEFAULT};
	struct err e = {.code = ERR_INTERNAL, .message = "failed without saying why"};
	struct sosied d = {.source = &source_system};
	CLEANUP_CLOSE int lock = -1;
	int r = parse_options(argc, argv, &o, &e);

	if (r > 0)
		return 0;
	log_init("sosied");
	(void)umask(0077);
	allow_many_files();
	if (r == 0)
		r = start(&d, &o, &lock, &e);
	if (r == 0) {
		log_control(LOG_INFO, "started", " state=%s", log_quote(o.state));
		r = loop_run(d.event);
		if (r < 0)
			(void)err_errno(&e, r, "run");
		log_control(LOG_INFO, "stopped", NULL);
	}
	stop(&d);
	if (r >= 0)
		return r;
	(void)fprintf(stderr, "sosied: %s\n%s%s%s", e.message, e.hint[0] ? "hint: " : "", e.hint,
		e.hint[0] ? "\n" : "");
	return err_exit_status(e.code);
}
