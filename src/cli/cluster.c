/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sosie up and sosie down: a control plane and hosts on this machine.
 *
 *   STATE/control.json          where the control plane is, and a token for the other commands
 *   STATE/up/processes.json     what was started: pid, start time, boot
 *   STATE/up/control/           sosied's state           STATE/up/control.log
 *   STATE/up/hosts/NAME/        a sosie-hostd's state    STATE/up/NAME.log
 *   STATE/up/admin-token, STATE/up/join-token
 *   STATE/up/lock               held by an up or a down that is at work
 *
 * Each process is written down before the next is started, so that an up that is killed leaves
 * nothing behind that down does not find.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/source.h"
#include "base/str.h"
#include "cli/service.h"
#include "cli/wait.h"
#include "io/json.h"
#include "lib/values/group.h"

#define HOSTS_MAX       64
#define PROCESSES_MAX   (HOSTS_MAX + 1)
#define NAME_SIZE       32
#define START_LIMIT_MS  60000
#define ONLINE_LIMIT_NS (180 * (uint64_t)NSEC_PER_SEC)
#define LOOK_EVERY_NS   (200 * NSEC_PER_MSEC)
#define END_LIMIT_NS    (20 * (uint64_t)NSEC_PER_SEC)
#define LISTEN_DEFAULT  "127.0.0.1:0"
#define SAYS            "sosied listens on "
#define FILE_TEXT_MAX   65536

struct cluster {
	char state[PATH_MAX];  /* STATE */
	char folder[PATH_MAX]; /* STATE/up */
	char programs[PATH_MAX];
	int lock;
	struct {
		char name[NAME_SIZE];
		struct service process;
	} processes[PROCESSES_MAX];
	size_t n;
	struct api api;
	const char *accel;
	char cores[24], memory[24], disk[24]; /* of each host */
};

static uint64_t now_ns(void)
{
	return source_system.clock_ns(source_system.context, CLOCK_MONOTONIC);
}

/* STATE/up/NAME; too long a path was refused when the folder was opened. */
static void in_folder(const struct cluster *u, const char *name, char out[PATH_MAX])
{
	int r = path_join(out, PATH_MAX, u->folder, name);

	assert(r == 0);
	(void)r;
}

/* Writes a file that only its owner may read, whole or not at all. */
static int write_file(const char *path, const char *text, struct err *e)
{
	char name[PATH_MAX];
	CLEANUP_CLOSE int fd = -1;
	size_t n = strlen(text);

	if (snprintf(name, sizeof(name), "%s.new", path) >= (int)sizeof(name))
		return err_errno(e, -ENAMETOOLONG, "write %s", path);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n || fsync(fd) < 0 || rename(name, path) < 0)
		return err_errno(e, errno ? -errno : -EIO, "write %s", path);
	return 0;
}

/* Takes j. */
static int write_json(const char *path, json_t *j, struct err *e)
{
	CLEANUP_FREE char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;

	json_decref(j);
	return text ? write_file(path, text, e) : err_errno(e, -ENOMEM, "write %s", path);
}

static int read_text(const char *path, char *out, size_t size, struct err *e)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return err_errno(e, -errno, "open %s", path);
	n = fread(out, 1, size - 1, f);
	(void)fclose(f);
	out[n] = '\0';
	return (int)n;
}

static int open_folder(struct cluster *u, struct err *e)
{
	char path[PATH_MAX];
	int r = state_directory(u->state, e);

	u->lock = -1;
	if (r < 0)
		return r;
	/* Room for the longest name below it. */
	r = strlen(u->state) > PATH_MAX / 2 ? -ENAMETOOLONG
					    : path_join(u->folder, PATH_MAX, u->state, "up");
	if (r == 0)
		r = make_directories(u->folder, 0700);
	if (r < 0)
		return err_errno(e, r, "use the state folder %s", u->state);
	in_folder(u, "lock", path);
	u->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (u->lock < 0)
		return err_errno(e, -errno, "open %s", path);
	if (flock(u->lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "another 'sosie up' or 'sosie down' is at work");
	return 0;
}

static int find_programs(struct cluster *u, struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", u->programs, sizeof(u->programs) - 1);

	if (n < 0)
		return err_errno(e, -errno, "find this program");
	u->programs[n] = '\0';
	*strrchr(u->programs, '/') = '\0';
	return 0;
}

static int save(const struct cluster *u, struct err *e)
{
	json_t *list = json_array();
	char boot[BOOT_ID_SIZE], path[PATH_MAX];
	int r = boot_id(boot);

	if (r < 0) {
		json_decref(list);
		return err_errno(e, r, "know which boot this is");
	}
	for (size_t i = 0; i < u->n; i++)
		(void)json_array_append_new(
			list, json_pack("{s:s,s:i,s:I}", "name", u->processes[i].name, "pid",
				      (int)u->processes[i].process.pid, "started",
				      (json_int_t)u->processes[i].process.started));
	in_folder(u, "processes.json", path);
	return write_json(path, json_pack("{s:s,s:o}", "boot", boot, "processes", list), e);
}

static int add_loaded(struct cluster *u, const json_t *item, struct err *e)
{
	int64_t pid = 0, started = 0;
	const char *name = "";
	int r = json_get_string(item, "name", NAME_SIZE - 1, &name, e);

	if (r == 0)
		r = json_get_integer(item, "pid", 1, INT32_MAX, &pid, e);
	if (r == 0)
		r = json_get_integer(item, "started", 0, INT64_MAX, &started, e);
	if (r < 0)
		return r;
	(void)snprintf(u->processes[u->n].name, NAME_SIZE, "%s", name);
	u->processes[u->n++].process = (struct service){(pid_t)pid, (uint64_t)started};
	return 0;
}

/* What an earlier up has started; after a reboot of the machine, nothing. */
static int load(struct cluster *u, struct err *e)
{
	CLEANUP_FREE char *text = zalloc(1, FILE_TEXT_MAX);
	char boot[BOOT_ID_SIZE], path[PATH_MAX];
	const json_t *list = NULL;
	CLEANUP_JSON json_t *j = NULL;
	const char *then = "";
	int r;

	in_folder(u, "processes.json", path);
	if (access(path, F_OK) < 0)
		return 0;
	if (!text)
		return err_errno(e, -ENOMEM, "read %s", path);
	r = read_text(path, text, FILE_TEXT_MAX, e);
	if (r >= 0)
		r = json_parse(text, (size_t)r, NULL, &j, e);
	if (r == 0)
		r = json_get_string(j, "boot", BOOT_ID_SIZE - 1, &then, e);
	if (r == 0)
		r = json_get_array(j, "processes", PROCESSES_MAX, &list, e);
	if (r < 0 || boot_id(boot) < 0 || strcmp(boot, then) != 0)
		return r;
	for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
		r = add_loaded(u, json_array_get(list, i), e);
	return r;
}

static size_t count_alive(const struct cluster *u)
{
	size_t alive = 0;

	for (size_t i = 0; i < u->n; i++)
		alive += service_alive(&u->processes[i].process);
	return alive;
}

static int launch_process(
	struct cluster *u, const char *name, const char *const argv[], int *ret_out, struct err *e)
{
	char log[PATH_MAX], file[NAME_SIZE + 8];
	struct service p;
	int r;

	(void)snprintf(file, sizeof(file), "%s.log", name);
	in_folder(u, file, log);
	r = service_start(argv, log, ret_out, &p, e);
	if (r < 0)
		return r;
	(void)snprintf(u->processes[u->n].name, NAME_SIZE, "%s", name);
	u->processes[u->n++].process = p;
	return save(u, e);
}

/* The last line of a process's log: what it died of. */
static int explain_death(const struct cluster *u, const char *name, struct err *e)
{
	CLEANUP_FREE char *text = zalloc(1, FILE_TEXT_MAX);
	char log[PATH_MAX], file[NAME_SIZE + 8], *line;
	FILE *f;
	long size;
	size_t n = 0;

	(void)snprintf(file, sizeof(file), "%s.log", name);
	in_folder(u, file, log);
	f = text ? fopen(log, "re") : NULL;
	if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 &&
		fseek(f, size < FILE_TEXT_MAX ? 0 : size - FILE_TEXT_MAX + 1, SEEK_SET) == 0)
		n = fread(text, 1, FILE_TEXT_MAX - 1, f);
	if (f)
		(void)fclose(f);
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	line = text ? strrchr(text, '\n') : NULL;
	(void)err_set(e, ERR_UNAVAILABLE, "%s has ended: %.250s", name,
		line            ? line + 1
		: text && *text ? text
				: "it has said nothing");
	return err_hint(e, "all that it said is in %.200s", log);
}

/* Waits for the line in which sosied says where it listens. */
static int read_address(struct cluster *u, int fd, char *out, size_t size, struct err *e)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	size_t n = 0;

	while (n < size - 1) {
		ssize_t got;

		if (poll(&ready, 1, START_LIMIT_MS) <= 0)
			return err_set(
				e, ERR_TIMEOUT, "the control plane does not say where it is");
		got = read(fd, out + n, 1);
		if (got <= 0)
			return explain_death(u, "control", e);
		if (out[n] == '\n')
			break;
		n++;
	}
	out[n] = '\0';
	if (!str_starts_with(out, SAYS))
		return err_set(e, ERR_INTERNAL, "the control plane says '%.100s'", out);
	memmove(out, out + strlen(SAYS), n - strlen(SAYS) + 1);
	return 0;
}

/* Leaves word for the other commands, and reads it back as they do. */
static int publish(struct cluster *u, const char *address, struct err *e)
{
	char path[PATH_MAX], token[API_TOKEN_MAX];
	int r;

	in_folder(u, "admin-token", path);
	r = read_text(path, token, sizeof(token), e);
	if (r < 0)
		return r;
	r = path_join(path, sizeof(path), u->state, "control.json");
	if (r == 0)
		r = write_json(path, json_pack("{s:s,s:s}", "api", address, "token", token), e);
	(void)snprintf(u->api.url, sizeof(u->api.url), "%s", address);
	(void)snprintf(u->api.token, sizeof(u->api.token), "%s", token);
	return r;
}

static int start_control(struct cluster *u, const char *listen, struct err *e)
{
	char program[PATH_MAX], state[PATH_MAX], token[PATH_MAX], address[API_URL_MAX];
	CLEANUP_CLOSE int out = -1;
	int r = path_join(program, sizeof(program), u->programs, "sosied");

	if (r < 0)
		return err_errno(e, r, "find sosied");
	in_folder(u, "control", state);
	in_folder(u, "admin-token", token);
	r = launch_process(u, "control",
		(const char *const[]){program, "--state", state, "--listen", listen,
			"--admin-token-file", token, NULL},
		&out, e);
	if (r == 0)
		r = read_address(u, out, address, sizeof(address), e);
	return r < 0 ? r : publish(u, address, e);
}

static int make_join_token(struct cluster *u, struct err *e)
{
	CLEANUP_JSON json_t *answer = NULL;
	char path[PATH_MAX];
	const char *token = "";
	int r = api_call(&u->api, "POST", "/v1/join-tokens", NULL, &answer, e);

	if (r == 0)
		r = json_get_string(answer, "token", API_TOKEN_MAX, &token, e);
	in_folder(u, "join-token", path);
	return r < 0 ? r : write_file(path, token, e);
}

/* What one of n hosts on this machine may give to guests: together no more than there is. */
static int share_machine(struct cluster *u, unsigned int n, struct err *e)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct statvfs disk;

	if (cores < 1 || pages < 1 || statvfs(u->folder, &disk) < 0)
		return err_errno(e, -errno, "learn what this machine has");
	(void)snprintf(u->cores, sizeof(u->cores), "%ld", MAX(cores / (long)n, 1L));
	(void)snprintf(u->memory, sizeof(u->memory), "%" PRIu64, (uint64_t)pages * page / n);
	(void)snprintf(
		u->disk, sizeof(u->disk), "%" PRIu64, (uint64_t)disk.f_bavail * disk.f_frsize / n);
	return 0;
}

static int start_host(struct cluster *u, unsigned int number, struct err *e)
{
	char program[PATH_MAX], state[PATH_MAX], token[PATH_MAX], folder[PATH_MAX], name[NAME_SIZE];
	int r = path_join(program, sizeof(program), u->programs, "sosie-hostd");

	(void)snprintf(name, sizeof(name), "host-%u", number);
	in_folder(u, "join-token", token);
	in_folder(u, "hosts", folder);
	if (r == 0)
		r = path_join(state, sizeof(state), folder, name);
	if (r == 0)
		r = make_directories(state, 0711);
	if (r < 0)
		return err_errno(e, r, "make room for %s", name);
	return launch_process(u, name,
		(const char *const[]){program, "--state", state, "--url", u->api.url,
			"--join-token-file", token, "--name", name, "--cores", u->cores, "--memory",
			u->memory, "--disk", u->disk, u->accel ? "--accel" : NULL, u->accel, NULL},
		NULL, e);
}

/* How many of ours are online; an error when one has ended. */
static int count_online(struct cluster *u, struct err *e)
{
	CLEANUP_JSON json_t *hosts = NULL;
	const json_t *host;
	int online = 0;
	size_t k;
	int r;

	for (size_t i = 0; i < u->n; i++)
		if (!service_alive(&u->processes[i].process))
			return explain_death(u, u->processes[i].name, e);
	r = api_list(&u->api, NULL, "/v1/hosts", &hosts, e);
	if (r < 0)
		return r;
	json_array_foreach(hosts, k, host)
	{
		const char *name = json_string_value(json_object_get(host, "name"));
		const char *state = json_string_value(json_object_get(host, "state"));

		for (size_t i = 1; i < u->n; i++)
			online += !strcmp(u->processes[i].name, name) &&
				  strcmp(state, "offline") != 0 && strcmp(state, "enrolled") != 0;
	}
	return online;
}

static int wait_online(struct cluster *u, struct err *e)
{
	const struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
	uint64_t deadline_ns = now_ns() + ONLINE_LIMIT_NS;
	int online = 0;

	while (online + 1 < (int)u->n) {
		online = count_online(u, e);
		if (online < 0)
			return online;
		progress("%d of %zu hosts are online", online, u->n - 1);
		if (now_ns() > deadline_ns)
			return err_set(e, ERR_TIMEOUT, "only %d of %zu hosts came online", online,
				u->n - 1);
		if (online + 1 < (int)u->n)
			(void)nanosleep(&pause, NULL);
	}
	progress("%s", "");
	return 0;
}

/* Ends what is left of guests and switches below a host's folder: KIND/…/SOCKET. */
static void end_listeners(const char *host, const char *kind, const char *socket)
{
	char folder[PATH_MAX], path[PATH_MAX], inside[PATH_MAX];
	struct dirent *entry;
	DIR *d;

	if (path_join(folder, sizeof(folder), host, kind) < 0)
		return;
	d = opendir(folder);
	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.' &&
			path_join(inside, sizeof(inside), folder, entry->d_name) == 0 &&
			path_join(path, sizeof(path), inside, socket) == 0)
			service_end_listener(path, END_LIMIT_NS);
	if (d)
		(void)closedir(d);
}

static void end_guests(const struct cluster *u)
{
	char hosts[PATH_MAX], host[PATH_MAX];
	struct dirent *entry;
	DIR *d;

	in_folder(u, "hosts", hosts);
	d = opendir(hosts);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' ||
			path_join(host, sizeof(host), hosts, entry->d_name) < 0)
			continue;
		progress("ending the guests of %s", entry->d_name);
		end_listeners(host, "instances", "vm.sock");
		end_listeners(host, "networks", "switch.sock");
	}
	if (d)
		(void)closedir(d);
	progress("%s", "");
}

/* The agents first, so that none starts again what is ended; the control plane last. */
static void bring_down(struct cluster *u, bool keep_guests)
{
	char path[PATH_MAX];

	for (size_t i = u->n; i-- > 0;) {
		if (i == 0 && !keep_guests)
			end_guests(u);
		progress("ending %s", u->processes[i].name);
		service_end(&u->processes[i].process, END_LIMIT_NS);
	}
	progress("%s", "");
	in_folder(u, "processes.json", path);
	(void)unlink(path);
	if (path_join(path, sizeof(path), u->state, "control.json") == 0)
		(void)unlink(path);
}

static int bring_up(
	struct cluster *u, const struct invocation *inv, unsigned int hosts, struct err *e)
{
	const char *listen = option(inv, "listen");
	char path[PATH_MAX];
	int r = start_control(u, listen ? listen : LISTEN_DEFAULT, e);

	if (r == 0)
		r = make_join_token(u, e);
	if (r == 0)
		r = share_machine(u, hosts, e);
	for (unsigned int i = 1; r == 0 && i <= hosts; i++)
		r = start_host(u, i, e);
	if (r == 0)
		r = wait_online(u, e);
	in_folder(u, "join-token", path);
	(void)unlink(path);
	return r;
}

/* In the foreground: until somebody interrupts it, or one of the processes ends. */
static int stay(struct cluster *u, const sigset_t *signals, struct err *e)
{
	const struct timespec pause = {.tv_sec = 1};

	(void)fprintf(stderr, "interrupt this (control and C) to end it\n");
	/* A down meanwhile is a way to end it, too. */
	(void)flock(u->lock, LOCK_UN);
	for (;;) {
		if (sigtimedwait(signals, NULL, &pause) > 0)
			return 0;
		if (count_alive(u) == 0)
			return 0;
		for (size_t i = 0; i < u->n; i++)
			if (!service_alive(&u->processes[i].process))
				return explain_death(u, u->processes[i].name, e);
	}
}

static int report(const struct cluster *u, const struct invocation *inv, struct err *e)
{
	if (inv->json)
		return print_json(
			json_pack("{s:s,s:I}", "api", u->api.url, "hosts", (json_int_t)(u->n - 1)),
			e);
	(void)printf("%zu host%s online, control plane at %s\n", u->n - 1, u->n == 2 ? "" : "s",
		u->api.url);
	return fflush(stdout) == 0 ? 0 : err_set(e, ERR_INTERNAL, "writing the output failed");
}

static int run_up_locked(struct cluster *u, const struct invocation *inv, unsigned int hosts,
	const sigset_t *signals, struct err *e)
{
	int r = load(u, e);

	if (r == 0 && count_alive(u) > 0) {
		(void)err_set(e, ERR_CONFLICT, "it is running already");
		return err_hint(e, "'sosie status' shows it, 'sosie down' ends it");
	}
	u->n = 0;
	if (r == 0)
		r = find_programs(u, e);
	if (r < 0)
		return r;
	r = bring_up(u, inv, hosts, e);
	if (r == 0)
		r = report(u, inv, e);
	if (r == 0 && option(inv, "detach"))
		return 0;
	if (r == 0)
		r = stay(u, signals, e);
	/* After a down, and perhaps another up, there is nothing of ours left to end. */
	if (flock(u->lock, LOCK_EX) == 0 && count_alive(u) > 0)
		bring_down(u, false);
	return r;
}

int run_up(const struct invocation *inv, struct err *e)
{
	const char *hosts = option(inv, "hosts");
	CLEANUP_FREE struct cluster *u = zalloc(1, sizeof(*u));
	sigset_t signals;
	uint64_t n = 1;
	int r;

	if (!u)
		return err_errno(e, -ENOMEM, "start");
	if (hosts && (parse_u64(hosts, HOSTS_MAX, &n) < 0 || n == 0))
		return err_set(
			e, ERR_INVALID, "--hosts is from 1 to %d, not '%s'", HOSTS_MAX, hosts);
	u->accel = option(inv, "accel");
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	r = open_folder(u, e);
	if (r == 0)
		r = run_up_locked(u, inv, (unsigned int)n, &signals, e);
	if (u->lock >= 0)
		(void)close(u->lock);
	return r;
}

int run_down(const struct invocation *inv, struct err *e)
{
	CLEANUP_FREE struct cluster *u = zalloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_errno(e, -ENOMEM, "end");
	r = open_folder(u, e);
	if (r == 0)
		r = load(u, e);
	if (r == 0 && u->n == 0)
		r = err_set(e, ERR_NOT_FOUND, "nothing was started here with 'sosie up'");
	if (r == 0)
		bring_down(u, option(inv, "keep-guests") != NULL);
	if (u->lock >= 0)
		(void)close(u->lock);
	return r;
}
