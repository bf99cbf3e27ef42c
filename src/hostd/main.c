/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie-hostd: the agent of one host. It dials out to the control plane, brings the instances of
 * this host from what is to what should be, and tells what it sees.
 *
 * It may be killed and started again at any time: guests run on under their own sosie-vm, and the
 * next agent on the same state folder adopts them. A service manager must therefore end only this
 * process (systemd: KillMode=process).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "hostd/accel.h"
#include "hostd/uplink.h"
#include "io/file.h"
#include "io/loop.h"

struct options {
	const char *state, *url, *name, *zone, *ca_file, *join_token_file, *accel, *user, *overlay;
	const char *cores, *memory, *disk, *heartbeat, *grace;
	bool probe_only;
};

#define WITHOUT_ARGUMENT(X) X("probe-accel", probe_only, "try KVM, say the verdict, and end")

/*     name                member           argument   meaning */
#define OPTION_TABLE(X)                                                                            \
	X("state", state, "FOLDER", "the agent's state; one agent per folder (required)")          \
	X("url", url, "URL", "the control plane, as in https://control.example:8443 (required)")   \
	X("name", name, "NAME", "of this host [its host name]")                                    \
	X("zone", zone, "NAME", "where the host stands")                                           \
	X("ca", ca_file, "FILE", "trust only these certificates (PEM)")                            \
	X("join-token-file", join_token_file, "FILE", "token for the first registration")          \
	X("overlay", overlay, "ADDRESS:PORT", "where other hosts reach this one's networks")       \
	X("accel", accel, "auto|tcg|kvm", "how guests run [auto: KVM where a test guest runs]")    \
	X("user", user, "NAME", "as whom guests run: a name, UID:GID, or none [sosie-vm, nobody]") \
	X("cores", cores, "N", "offered to guests [all]")                                          \
	X("memory", memory, "SIZE", "offered to guests, as in 8G [all]")                           \
	X("disk", disk, "SIZE", "offered to guests [what is free]")                                \
	X("heartbeat", heartbeat, "TIME", "between two reports without a change [5s]")             \
	X("grace", grace, "TIME", "for a guest to stop or reboot by itself [30s]")

static void print_usage(FILE *out)
{
	(void)fputs("usage: sosie-hostd --state FOLDER --url URL [OPTIONS]\n"
		    "       sosie-hostd --probe-accel [--state FOLDER] [--user NAME]\n\n",
		out);
#define X(name, member, argument, meaning) \
	(void)fprintf(out, "  --%-16s %-13s %s\n", name, argument, meaning);
	OPTION_TABLE(X)
#undef X
#define X(name, member, meaning) (void)fprintf(out, "  --%-16s %-13s %s\n", name, "", meaning);
	WITHOUT_ARGUMENT(X)
#undef X
	(void)fputs("\nexample:\n  sosie-hostd --state /var/lib/sosie/host --url "
		    "http://127.0.0.1:8080 \\\n    --join-token-file /etc/sosie/join\n",
		out);
}

/* Where the values of the options go, in the order of the table. */
static int parse_options(int argc, char **argv, struct options *o)
{
	const char **const places[] = {
#define X(name, member, argument, meaning) &o->member,
		OPTION_TABLE(X)
#undef X
	};
	static const struct option table[] = {
#define X(name, member, argument, meaning) {name, required_argument, NULL, 0},
		OPTION_TABLE(X)
#undef X
#define X(name, member, meaning) {name, no_argument, NULL, 'p'},
			WITHOUT_ARGUMENT(X)
#undef X
				{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	int c, index = 0;

	while ((c = getopt_long(argc, argv, "h", table, &index)) != -1) {
		switch (c) {
		case 0:
			*places[index] = optarg;
			break;
		case 'p':
			o->probe_only = true;
			break;
		case 'h':
			print_usage(stdout);
			exit(EXIT_SUCCESS);
		case 'v':
			(void)puts("sosie-hostd " SOSIE_VERSION);
			exit(EXIT_SUCCESS);
		default:
			return -EINVAL;
		}
	}
	return optind == argc && (o->probe_only || (o->state && o->url)) ? 0 : -EINVAL;
}

struct agent {
	sd_event *event;
	struct host *host;
	struct uplink *uplink;
	int state, lock;
	struct host_config host_config;
	struct uplink_config uplink_config;
	char state_path[PATH_MAX], vm_program[PATH_MAX], name[NAME_MAX_LENGTH + 1];
	char join_token[UPLINK_TOKEN_MAX];
};

static void agent_free(struct agent *a)
{
	uplink_free(a->uplink);
	host_free(a->host);
	(void)sd_event_unref(a->event);
	if (a->lock >= 0)
		(void)close(a->lock);
	if (a->state >= 0)
		(void)close(a->state);
}

static int open_state(struct agent *a, const char *path, struct err *e)
{
	int r = make_directories(path, 0711);

	if (r < 0)
		return err_errno(e, r, "make the state folder %s", path);
	if (!realpath(path, a->state_path))
		return err_errno(e, -errno, "find the state folder %s", path);
	a->state = open(a->state_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (a->state < 0)
		return err_errno(e, -errno, "open the state folder %s", path);
	a->lock = openat(a->state, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (a->lock < 0)
		return err_errno(e, -errno, "open the lock of %s", path);
	if (flock(a->lock, LOCK_EX | LOCK_NB) < 0) {
		(void)err_set(e, ERR_CONFLICT, "another agent runs on %s", path);
		return err_hint(e, "give each agent a state folder of its own");
	}
	return 0;
}

/* sosie-vm lies beside this program. */
static int find_vm_program(struct agent *a, struct err *e)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return err_errno(e, -errno, "find this program");
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	if (path_join(a->vm_program, sizeof(a->vm_program), self, "sosie-vm") < 0 ||
		access(a->vm_program, X_OK) < 0)
		return err_errno(e, -errno, "find sosie-vm beside this program in %s", self);
	return 0;
}

static int read_join_token(struct agent *a, const char *path, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT(UPLINK_TOKEN_MAX - 1);
	int r;

	if (!path)
		return 0;
	r = file_read_at(AT_FDCWD, path, &text);
	if (r < 0)
		return err_errno(e, r, "read the join token %s", path);
	(void)snprintf(a->join_token, sizeof(a->join_token), "%s", buf_text(&text));
	a->join_token[strcspn(a->join_token, "\r\n \t")] = '\0';
	a->uplink_config.join_token = a->join_token;
	return 0;
}

static int set_resources(struct uplink_config *u, const struct options *o, struct err *e)
{
	if (o->cores && (parse_u64(o->cores, 1 << 20, &u->offered.cores) < 0 || !u->offered.cores))
		return err_set(e, ERR_USAGE, "--cores is a number above 0");
	if (o->memory && parse_size(o->memory, &u->offered.memory_bytes) < 0)
		return err_set(e, ERR_USAGE, "--memory is a size, as in 8G");
	if (o->disk && parse_size(o->disk, &u->offered.disk_bytes) < 0)
		return err_set(e, ERR_USAGE, "--disk is a size, as in 100G");
	return 0;
}

static int set_times(struct agent *a, const struct options *o, struct err *e)
{
	uint64_t *heartbeat = &a->uplink_config.heartbeat_ns, *grace = &a->host_config.grace_ns;

	*heartbeat = 5 * NSEC_PER_SEC;
	*grace = 30 * NSEC_PER_SEC;
	if (o->heartbeat && (parse_duration_ns(o->heartbeat, heartbeat) < 0 || *heartbeat == 0))
		return err_set(e, ERR_USAGE, "--heartbeat is a time above 0, as in 5s");
	if (o->grace &&
		(parse_duration_ns(o->grace, grace) < 0 || *grace > 3600 * (uint64_t)NSEC_PER_SEC))
		return err_set(e, ERR_USAGE, "--grace is a time up to 1h, as in 30s");
	return 0;
}

static int set_name(struct agent *a, const char *name, struct err *e)
{
	char own[256] = "";

	(void)gethostname(own, sizeof(own) - 1);
	if (!name)
		name = own;
	if (!name_valid(name))
		return err_set(e, ERR_USAGE, "the name of a host is %s", name_rule);
	(void)snprintf(a->name, sizeof(a->name), "%s", name);
	return 0;
}

static int choose_accel(struct agent *a, const char *choice, struct err *e)
{
	struct accel verdict = {.reason = "told so"};
	int r = 0;

	if (!choice || !strcmp(choice, "auto"))
		r = accel_auto(a->state, &a->host_config.user, &verdict, e);
	else if (!strcmp(choice, "kvm") || !strcmp(choice, "tcg"))
		verdict.kvm = choice[0] == 'k';
	else
		return err_set(e, ERR_USAGE, "--accel is auto, tcg or kvm");
	if (r < 0)
		return r;
	a->host_config.kvm = verdict.kvm;
	a->uplink_config.accel = verdict.kvm ? "kvm" : "tcg";
	log_control(LOG_INFO, "accelerator", " accel=%s reason=%s", a->uplink_config.accel,
		log_quote(verdict.reason));
	return 0;
}

static int configure(struct agent *a, const struct options *o, struct err *e)
{
	int r = set_name(a, o->name, e);

	if (r == 0)
		r = set_times(a, o, e);
	if (r == 0)
		r = set_resources(&a->uplink_config, o, e);
	if (r == 0)
		r = guest_user_parse(o->user, &a->host_config.user, e);
	if (r == 0)
		r = read_join_token(a, o->join_token_file, e);
	if (r == 0)
		r = find_vm_program(a, e);
	if (r == 0)
		r = open_state(a, o->state, e);
	if (r == 0)
		r = choose_accel(a, o->accel, e);
	if (r < 0)
		return r;
	a->host_config.event = a->uplink_config.event = a->event;
	a->host_config.state = a->uplink_config.state = a->state;
	a->host_config.state_path = a->state_path;
	a->host_config.vm_program = a->vm_program;
	a->uplink_config.url = o->url;
	a->uplink_config.ca_file = o->ca_file;
	a->uplink_config.host = a->name;
	a->uplink_config.zone = o->zone;
	a->uplink_config.overlay = o->overlay;
	return 0;
}

static int fail(const struct err *e)
{
	(void)fprintf(stderr, "sosie-hostd: %s\n", e->message);
	if (e->hint[0])
		(void)fprintf(stderr, "  %s\n", e->hint);
	return err_exit_status(e->code);
}

static int run(const struct options *o)
{
	CLEANUP(agent_free) struct agent a = {.state = -1, .lock = -1};
	struct err e = {0};
	int r = loop_new(&a.event);

	if (r < 0)
		(void)err_errno(&e, r, "make an event loop");
	if (r >= 0)
		r = configure(&a, o, &e);
	if (r >= 0)
		r = host_new(&a.host_config, &a.host, &e);
	if (r >= 0)
		r = uplink_new(&a.uplink_config, a.host, &a.uplink, &e);
	if (r < 0)
		return fail(&e);
	return loop_run(a.event) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int probe(const struct options *o)
{
	struct guest_user user;
	struct accel verdict;
	struct err e = {0};

	if (guest_user_parse(o->user, &user, &e) < 0 ||
		accel_probe(&user, ACCEL_LIMIT_NS, &verdict, &e) < 0)
		return fail(&e);
	(void)printf("%s: %s\n", verdict.kvm ? "kvm" : "tcg", verdict.reason);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct options o = {0};

	log_init("sosie-hostd");
	if (parse_options(argc, argv, &o) < 0) {
		print_usage(stderr);
		return 2;
	}
	return o.probe_only ? probe(&o) : run(&o);
}
