/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/values/group.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/source.h"
#include "lib/values/client.h"

#define GROUPS_MAX 100000 /* folders looked at when listing */
/* A follower's first member waits 5 s for word from the source. */
#define FRAME_LOOK_NS (5 * NSEC_PER_MSEC)
#define FRAME_LOOKS   1000

static const struct source *const source = &source_system;

int state_directory(char *out, struct err *e)
{
	const char *explicit_path = getenv("SOSIE_STATE_DIR");
	const char *state_home = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char path[PATH_MAX];
	int n, r;

	if (explicit_path && *explicit_path)
		n = snprintf(path, sizeof(path), "%s", explicit_path);
	else if (state_home && state_home[0] == '/')
		n = snprintf(path, sizeof(path), "%s/sosie", state_home);
	else if (home && home[0] == '/')
		n = snprintf(path, sizeof(path), "%s/.local/state/sosie", home);
	else
		return err_set(e, ERR_USAGE, "no folder to keep state in: set SOSIE_STATE_DIR");
	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(e, ERR_INVALID, "the state folder's path is too long");
	r = make_directories(path, 0700);
	if (r < 0)
		return err_errno(e, r, "make the state folder %s", path);
	/* Members find the segment by this path whatever their working folder is. */
	if (!realpath(path, out))
		return err_errno(e, -errno, "resolve %s", path);
	return 0;
}

static int group_directory(const char *name, char *out, struct err *e)
{
	char state[PATH_MAX];
	int n, r;

	if (!name_valid(name)) {
		(void)err_set(e, ERR_INVALID, "'%s' is no name for a group", name ? name : "");
		return err_hint(e, "a name is %s", name_rule);
	}
	r = state_directory(state, e);
	if (r < 0)
		return r;
	n = snprintf(out, PATH_MAX, "%s/groups/%s", state, name);
	if (n < 0 || (size_t)n >= RUN_PATH_MAX - sizeof("/segment"))
		return err_set(e, ERR_INVALID, "the path of group %s is longer than %d bytes", name,
			RUN_PATH_MAX);
	return 0;
}

static int read_text(const char *path, char *out, size_t size)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

static int64_t timens_offset(const char *text, const char *clock_name)
{
	const char *at = strstr(text, clock_name);
	char *end;
	long long seconds, ns;

	if (!at)
		return 0;
	seconds = strtoll(at + strlen(clock_name), &end, 10);
	ns = strtoll(end, NULL, 10);
	return seconds * NSEC_PER_SEC + ns;
}

/* Where this process stands in time: which kernel, which time namespace. */
static void frame_now(struct clock_frame *f)
{
	char text[256] = "", digits[33];
	size_t n = 0;

	*f = (struct clock_frame){0};
	if (read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text)) == 0) {
		for (const char *p = text; *p && n < 32; p++)
			if (*p != '-')
				digits[n++] = *p;
		digits[n] = '\0';
		if (hex_decode(digits, f->boot_id, sizeof(f->boot_id)) < 0)
			*f = (struct clock_frame){0};
	}
	/* A kernel without time namespaces has no such file: no offsets. */
	if (read_text("/proc/self/timens_offsets", text, sizeof(text)) == 0) {
		f->timens_mono_ns = timens_offset(text, "monotonic");
		f->timens_boot_ns = timens_offset(text, "boottime");
	}
	f->real_ns = source->clock_ns(source->context, CLOCK_REALTIME);
	f->mono_ns = source->clock_ns(source->context, CLOCK_MONOTONIC);
	f->boot_ns = source->clock_ns(source->context, CLOCK_BOOTTIME);
}

/*
 * What this process's clocks are ahead of the group's, which are those of its frame. On the same
 * kernel exactly the difference of the time namespaces; on another, what the clocks say of the
 * time that has passed since, taking the hosts' time of day as equal.
 */
static void member_shift(struct member *m, const struct clock_frame *group)
{
	static const uint8_t unknown[16];
	struct clock_frame f;

	frame_now(&f);
	if (memcmp(f.boot_id, group->boot_id, sizeof(f.boot_id)) == 0 &&
		memcmp(f.boot_id, unknown, sizeof(unknown)) != 0) {
		m->shift_mono_ns = f.timens_mono_ns - group->timens_mono_ns;
		m->shift_boot_ns = f.timens_boot_ns - group->timens_boot_ns;
		return;
	}
	m->shift_mono_ns =
		(int64_t)(f.mono_ns - f.real_ns) - (int64_t)(group->mono_ns - group->real_ns);
	m->shift_boot_ns =
		(int64_t)(f.boot_ns - f.real_ns) - (int64_t)(group->boot_ns - group->real_ns);
}

/* The group's frame; a follower that has just been made waits for it to arrive. */
static const struct clock_frame *await_frame(const struct segment *s)
{
	const struct timespec pause = {.tv_nsec = FRAME_LOOK_NS};
	const struct clock_frame *frame;

	for (int looks = 0; !(frame = segment_frame(s)) && looks < FRAME_LOOKS; looks++)
		(void)nanosleep(&pause, NULL);
	return frame;
}

static int extend_file(void *context, uint64_t upto)
{
	const struct group *g = context;

	return fallocate(g->fd, 0, 0, (off_t)upto) < 0 ? -errno : 0;
}

/* Makes the segment in a new file that nobody else sees yet. */
static int write_segment(
	int fd, const char *name, const struct group_options *options, struct err *e)
{
	struct segment_options o = {
		.group = name,
		.size = options->size ? options->size : GROUP_SIZE_DEFAULT,
		.full_policy = options->full_policy,
		.audit_full = options->audit_full,
	};
	struct segment s = {.size = o.size};
	int r;

	o.committed = MIN(round_up_u64(SEGMENT_HEAP + SEGMENT_STEP / 2, SEGMENT_STEP), o.size);
	if (options->whole)
		o.committed = o.size;
	if (ftruncate(fd, (off_t)o.size) < 0)
		return err_errno(
			e, -errno, "make a segment of %llu bytes", (unsigned long long)o.size);
	if (fallocate(fd, 0, 0, (off_t)o.committed) < 0) {
		r = err_errno(e, -errno, "reserve room for the segment");
		if (r == -EOPNOTSUPP)
			(void)err_hint(
				e, "set SOSIE_STATE_DIR to a folder on ext4, xfs, btrfs or tmpfs");
		return r;
	}
	frame_now(&o.created);
	r = source->random(source->context, o.group_id, sizeof(o.group_id));
	if (r == 0)
		r = source->random(source->context, o.seed, sizeof(o.seed));
	if (r < 0)
		return err_errno(e, r, "read random bytes");
	s.base = mmap(NULL, (size_t)o.committed, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s.base == MAP_FAILED)
		return err_errno(e, -errno, "map the new segment");
	segment_format(&s, &o);
	explicit_bzero(o.seed, sizeof(o.seed));
	(void)munmap(s.base, o.committed);
	return 0;
}

int group_create(const char *name, const struct group_options *options, struct err *e)
{
	char directory[PATH_MAX], unnamed[64], path[PATH_MAX + 16];
	CLEANUP_CLOSE int fd = -1;
	int r = group_directory(name, directory, e);

	if (r < 0)
		return r;
	if (options->size && (options->size < SEGMENT_SIZE_MIN ||
				     options->size > SEGMENT_SIZE_MAX || options->size % 4096 != 0))
		return err_set(
			e, ERR_INVALID, "a segment's size is a multiple of 4096 from 1M to 1024G");
	r = make_directories(directory, 0700);
	if (r < 0)
		return err_errno(e, r, "make %s", directory);
	(void)snprintf(path, sizeof(path), "%s/segment", directory);
	if (access(path, F_OK) == 0)
		return err_set(e, ERR_CONFLICT, "group %s exists", name);
	fd = open(directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, -errno, "make a file in %s", directory);
	r = write_segment(fd, name, options, e);
	/* It gets its name when it is whole, and the first of two creators wins. */
	(void)snprintf(unnamed, sizeof(unnamed), "/proc/self/fd/%d", fd);
	if (r == 0 && linkat(AT_FDCWD, unnamed, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
		r = errno == EEXIST ? err_set(e, ERR_CONFLICT, "group %s exists", name)
				    : err_errno(e, -errno, "make %s", path);
	if (r < 0)
		(void)rmdir(directory); /* only when it is empty */
	return r;
}

static int open_segment(const char *name, struct group *g, struct err *e)
{
	uint8_t head[SEGMENT_HEADER] = {0};
	struct stat st = {0};
	ssize_t n;
	int r = group_directory(name, g->directory, e);

	if (r < 0)
		return r;
	(void)snprintf(g->name, sizeof(g->name), "%s", name);
	r = path_join(g->path, sizeof(g->path), g->directory, "segment");
	if (r < 0)
		return err_errno(e, r, "open group %s", name);
	g->fd = open(g->path, O_RDWR | O_CLOEXEC);
	if (g->fd < 0 && errno == ENOENT) {
		(void)err_set(e, ERR_NOT_FOUND, "there is no group %s", name);
		return err_hint(e, "'sosie group list' shows the groups there are");
	}
	if (g->fd < 0 || fstat(g->fd, &st) < 0)
		return err_errno(e, -errno, "open %s", g->path);
	n = pread(g->fd, head, sizeof(head), 0);
	if (n < 0)
		return err_errno(e, -errno, "read %s", g->path);
	r = segment_check(head, (size_t)n, (uint64_t)st.st_size, &g->segment.size, e);
	if (r < 0)
		return r;
	g->segment.base = mmap(NULL, g->segment.size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_NORESERVE, g->fd, 0);
	if (g->segment.base == MAP_FAILED) {
		g->segment.base = NULL;
		return err_errno(e, -errno, "map %s", g->path);
	}
	g->segment.extend = extend_file;
	g->segment.context = g;
	return 0;
}

int group_open(const char *name, struct group **ret, struct err *e)
{
	struct group *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return err_errno(e, -ENOMEM, "open group %s", name);
	g->fd = -1;
	r = open_segment(name, g, e);
	if (r < 0)
		(void)group_close(g);
	else
		*ret = g;
	return r;
}

int group_open_at(const char *path, struct group **ret, struct err *e)
{
	CLEANUP(group_close_p) struct group *g = calloc(1, sizeof(*g));
	struct stat st = {0};
	int r;

	if (!g)
		return err_errno(e, -ENOMEM, "open %s", path);
	(void)snprintf(g->path, sizeof(g->path), "%s", path);
	g->fd = open(path, O_RDWR | O_CLOEXEC);
	if (g->fd < 0 || fstat(g->fd, &st) < 0)
		return err_errno(e, -errno, "open %s", path);
	if (st.st_size < SEGMENT_HEADER)
		return err_set(e, ERR_CORRUPT, "%s is truncated", path);
	/* A window on another machine's memory can be mapped and not read. */
	g->segment.base =
		mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
	if (g->segment.base == MAP_FAILED) {
		g->segment.base = NULL;
		return err_errno(e, -errno, "map %s", path);
	}
	r = segment_check(
		g->segment.base, SEGMENT_HEADER, (uint64_t)st.st_size, &g->segment.size, e);
	if (r < 0)
		return r;
	(void)snprintf(g->name, sizeof(g->name), "%s", segment_header(&g->segment)->group);
	*ret = TAKE_PTR(g);
	return 0;
}

int group_open_or_create(const char *name, struct group **ret, struct err *e)
{
	const struct group_options defaults = {0};
	int r = group_open(name, ret, e);

	if (r != -ENOENT)
		return r;
	r = group_create(name, &defaults, e);
	/* Somebody else's creation serves as well as ours. */
	return r < 0 && r != -EEXIST ? r : group_open(name, ret, e);
}

struct group *group_close(struct group *g)
{
	if (!g)
		return NULL;
	if (g->segment.base)
		(void)munmap(g->segment.base, g->segment.size);
	if (g->fd >= 0)
		(void)close(g->fd);
	free(g);
	return NULL;
}

bool member_alive(const struct segment *s, const struct member *m)
{
	struct walk w = walk_processes(s, m);
	const struct process *p;

	if (m->place == MEMBER_IN_GUEST)
		return atomic_load(&m->state) == MEMBER_RUNNING;
	/* The first program's process is there before it has joined. */
	if (kill((pid_t)m->pid, 0) == 0 || errno == EPERM)
		return true;
	while ((p = process_next(s, &w)))
		if (!atomic_load(&p->ended) && (kill((pid_t)p->pid, 0) == 0 || errno == EPERM))
			return true;
	return false;
}

static bool anybody_alive(const struct group *g)
{
	struct walk w = walk_members(&g->segment);
	const struct member *m;

	while ((m = member_next(&g->segment, &w)))
		if (atomic_load(&m->state) == MEMBER_RUNNING && member_alive(&g->segment, m))
			return true;
	return false;
}

/* The folder holds files only. */
static int remove_files(const char *directory, struct err *e)
{
	DIR *d = opendir(directory);
	const struct dirent *entry;
	int r = 0;

	if (!d)
		return err_errno(e, -errno, "remove %s", directory);
	while (r == 0 && (entry = readdir(d)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			unlinkat(dirfd(d), entry->d_name, 0) < 0)
			r = err_errno(e, -errno, "remove %s/%s", directory, entry->d_name);
	(void)closedir(d);
	if (r == 0 && rmdir(directory) < 0)
		r = err_errno(e, -errno, "remove %s", directory);
	return r;
}

int group_remove(const char *name, bool force, struct err *e)
{
	CLEANUP(group_close_p) struct group *g = NULL;
	char directory[PATH_MAX], gone[PATH_MAX + 32];
	int r = group_directory(name, directory, e);

	if (r < 0)
		return r;
	r = group_open(name, &g, e);
	/* A damaged group can be removed, but only on demand. */
	if (r < 0 && (r == -ENOENT || !force))
		return r;
	if (g && !force && anybody_alive(g)) {
		(void)err_set(e, ERR_CONFLICT, "group %s has running members", name);
		return err_hint(e, "end them first, or use --force");
	}
	/* It is gone at once and as a whole; a recorder that is still busy finds no folder to write
	 * to. */
	(void)snprintf(gone, sizeof(gone), "%.*s.removed-%s-%d",
		(int)(strrchr(directory, '/') + 1 - directory), directory, name, (int)getpid());
	if (rename(directory, gone) < 0)
		return err_errno(e, -errno, "remove %s", directory);
	return remove_files(gone, e);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void group_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

int group_names(char ***ret, struct err *e)
{
	char state[PATH_MAX], path[PATH_MAX];
	char **names = calloc(1, sizeof(*names)), **more;
	const struct dirent *entry;
	size_t n = 0;
	DIR *d;
	int r = state_directory(state, e);

	if (r == 0)
		r = path_join(path, sizeof(path), state, "groups");
	if (r < 0 || !names) {
		free(names);
		return r < 0 ? r : err_errno(e, -ENOMEM, "list groups");
	}
	d = opendir(path);
	while (d && (entry = readdir(d)) && n < GROUPS_MAX) {
		if (!name_valid(entry->d_name))
			continue;
		more = realloc(names, (n + 2) * sizeof(*names));
		if (more)
			names = more;
		names[n] = more ? strdup(entry->d_name) : NULL;
		if (!names[n]) {
			r = err_errno(e, -ENOMEM, "list groups");
			break;
		}
		names[++n] = NULL;
	}
	if (d)
		(void)closedir(d);
	if (r < 0) {
		group_names_free(names);
		return r;
	}
	qsort(names, n, sizeof(*names), by_name);
	*ret = names;
	return 0;
}

int group_join(struct group *g, const char *member, const char *program, uint32_t run,
	enum member_place place, struct member **ret, struct err *e)
{
	const struct segment *s = &g->segment;
	const char *slash = strrchr(program, '/');
	const struct clock_frame *frame = await_frame(s);
	struct lineage *root;
	struct member *m;

	if (!frame) {
		(void)err_set(e, ERR_UNAVAILABLE,
			"the source of group %s has not been heard of yet", g->name);
		return err_hint(e, "is its sosie-valued running, and this host's connected to it?");
	}
	root = lineage_get(s, NULL, STEP_PROGRAM, run, slash ? slash + 1 : program);
	m = root ? member_add(s, member) : NULL;
	if (!m) {
		(void)err_set(e, ERR_NO_CAPACITY, "the segment of group %s is full", g->name);
		return err_hint(e, "remove the group, or make it with a larger --size");
	}
	m->started_ns = source->clock_ns(source->context, CLOCK_REALTIME);
	m->pid = (uint32_t)getpid();
	m->place = place;
	m->root = segment_offset(s, root);
	member_shift(m, frame);
	*ret = m;
	return 0;
}

int group_run_value(const struct group *g, const struct member *m, char **ret, struct err *e)
{
	unsigned long long member = segment_offset(&g->segment, m), root = m->root;

	if (asprintf(ret, "%c:%016llx:%016llx:%016llx:%s", RUN_FRESH, member, root, root, g->path) <
		0)
		return err_errno(e, -ENOMEM, "join group %s", g->name);
	return 0;
}
