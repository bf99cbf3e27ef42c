/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   wanted ──(no path)──> FETCHING ──> DIGESTING ──> told to all who wait; the entry goes
 *      └──────(path)────────────────────^
 *
 * A digest, once found right, is remembered in STATE/images/SHA256.json with the identity of the
 * file (device, inode, size, times), so that starting a machine does not read its image again.
 * Images that are written to after that are noticed by the times.
 */
#include "hostd/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/reader.h"
#include "hostd/helper.h"
#include "hostd/privileged.h"
#include "io/file.h"
#include "io/json.h"
#include "io/loop.h"

#define QCOW2_MAGIC         0x514649fbU /* "QFI\xfb" */
#define QCOW2_HEAD          104
#define QCOW2_DATA_FILE_BIT 4U /* of the incompatible features */
#define SECTOR              512

struct waiter {
	struct waiter *next;
	image_fn callback;
	void *userdata;
};

struct entry {
	struct entry *next;
	struct images *images;
	struct image_name name;
	char path[IMAGE_PATH_MAX]; /* of the file that is looked at */
	bool fetched;              /* it is ours, and not yet under its own name */
	int fd;                    /* while it is fetched */
	uint64_t size;
	struct helper *helper;
	struct http_pending *call;
	sd_event_source *soon; /* tells the outcome from the loop */
	struct err err;
	struct image image;
	struct waiter *waiters;
};

struct images {
	sd_event *event;
	int folder;
	char path[IMAGE_PATH_MAX];
	struct http_client *client;
	const char *url, *ca_file, *token;
	struct entry *entries;
	unsigned int count;
};

int image_inspect(const char *path, struct image *ret, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct image found = {0};
	uint8_t head[QCOW2_HEAD];
	struct reader r;
	struct stat st;
	uint32_t version;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, -errno, "open the image %s", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_INVALID, "the image %s is no file", path);
	n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return err_errno(e, -errno, "read the image %s", path);
	(void)snprintf(found.path, sizeof(found.path), "%s", path);
	r = reader_init(head, (size_t)n);
	if (reader_u32_be(&r) != QCOW2_MAGIC) {
		found.raw = true;
		found.bytes = (uint64_t)st.st_size;
		if (found.bytes == 0 || found.bytes % SECTOR)
			return err_set(e, ERR_INVALID,
				"the image %s is neither qcow2 nor whole sectors", path);
		*ret = found;
		return 0;
	}
	version = reader_u32_be(&r);
	if (reader_u32_be(&r) != 0 || reader_u32_be(&r) != 0)
		return err_set(e, ERR_INVALID, "the image %s depends on a backing file", path);
	(void)reader_bytes(&r, 8); /* backing file's name and cluster size */
	found.bytes = (uint64_t)reader_u32_be(&r) << 32;
	found.bytes |= reader_u32_be(&r);
	(void)reader_bytes(&r, 40); /* up to the features */
	if (version == 3 && (reader_u32_be(&r), reader_u32_be(&r)) & QCOW2_DATA_FILE_BIT)
		return err_set(e, ERR_INVALID, "the image %s keeps its data in another file", path);
	if (r.failed || (version != 2 && version != 3) || found.bytes == 0)
		return err_set(e, ERR_CORRUPT, "the image %s has no valid qcow2 head", path);
	*ret = found;
	return 0;
}

static void entry_free(struct entry *n)
{
	helper_free(n->helper);
	if (n->call)
		http_cancel(n->call);
	loop_drop(&n->soon);
	if (n->fd >= 0)
		(void)close(n->fd);
	for (struct waiter *w = n->waiters, *next; w; w = next) {
		next = w->next;
		free(w);
	}
	free(n);
}

int images_new(
	sd_event *event, int state, const char *state_path, struct images **ret, struct err *e)
{
	struct images *m = calloc(1, sizeof(*m));
	int r = 0;

	if (!m)
		return err_errno(e, -ENOMEM, "keep images");
	m->event = sd_event_ref(event);
	m->folder = -1;
	if (mkdirat(state, "images", 0755) < 0 && errno != EEXIST)
		r = -errno;
	if (r == 0)
		r = path_join(m->path, sizeof(m->path) - IMAGE_SHA_SIZE - 8, state_path, "images");
	if (r == 0) {
		m->folder = openat(state, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = m->folder < 0 ? -errno : 0;
	}
	if (r < 0) {
		images_free(m);
		return err_errno(e, r, "make the folder of images");
	}
	*ret = m;
	return 0;
}

void images_free(struct images *m)
{
	if (!m)
		return;
	for (struct entry *n = m->entries, *next; n; n = next) {
		next = n->next;
		entry_free(n);
	}
	if (m->folder >= 0)
		(void)close(m->folder);
	(void)sd_event_unref(m->event);
	free(m);
}

void images_set_source(struct images *m, struct http_client *client, const char *url,
	const char *ca_file, const char *token)
{
	m->client = client;
	m->url = url;
	m->ca_file = ca_file;
	m->token = token;
}

/* Takes the entry out and tells everybody. */
static void tell(struct entry *n)
{
	struct entry **at = &n->images->entries;
	bool good = n->err.code == ERR_NONE;

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	n->images->count--;
	for (const struct waiter *w = n->waiters; w; w = w->next)
		w->callback(good ? &n->image : NULL, &n->err, w->userdata);
	entry_free(n);
}

static int on_soon(sd_event_source *source, void *userdata)
{
	(void)source;
	tell(userdata);
	return 0;
}

static json_t *identity(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return NULL;
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "path", path, "device",
		(json_int_t)st.st_dev, "inode", (json_int_t)st.st_ino, "bytes",
		(json_int_t)st.st_size, "modified_s", (json_int_t)st.st_mtim.tv_sec, "modified_ns",
		(json_int_t)st.st_mtim.tv_nsec, "changed_ns",
		(json_int_t)st.st_ctim.tv_sec * NSEC_PER_SEC + st.st_ctim.tv_nsec);
}

/* Whether this very file was found right before. */
static bool is_known(const struct entry *n)
{
	CLEANUP_JSON json_t *now = identity(n->path), *then = NULL;
	CLEANUP_BUF struct buf text = BUF_INIT(16 * IMAGE_PATH_MAX);
	char name[IMAGE_SHA_SIZE + 8];

	(void)snprintf(name, sizeof(name), "%s.json", n->name.sha256);
	return now && file_read_at(n->images->folder, name, &text) == 0 &&
	       json_parse(buf_text(&text), text.size, NULL, &then, NULL) == 0 &&
	       json_equal(now, then);
}

static void remember(const struct entry *n)
{
	CLEANUP_JSON json_t *now = identity(n->path);
	CLEANUP_FREE char *text = now ? json_dumps(now, JSON_COMPACT) : NULL;
	char name[IMAGE_SHA_SIZE + 8];

	/* When it cannot be remembered, it is found out again. */
	(void)snprintf(name, sizeof(name), "%s.json", n->name.sha256);
	if (text)
		(void)privileged_write(n->images->folder, name, text, strlen(text), 0600, NULL);
}

/* The file is right: gives a fetched one its name, and looks into it. */
static void accept_file(struct entry *n)
{
	char own[IMAGE_PATH_MAX];

	if (n->fetched) {
		(void)path_join(own, sizeof(own), n->images->path, n->name.sha256);
		if (rename(n->path, own) < 0) {
			(void)err_errno(&n->err, -errno, "keep the image %s", n->name.name);
			return;
		}
		(void)snprintf(n->path, sizeof(n->path), "%s", own);
	}
	if (image_inspect(n->path, &n->image, &n->err) == 0)
		n->err.code = ERR_NONE;
}

static void on_digest(const struct err *e, const char *output, void *userdata)
{
	struct entry *n = userdata;

	n->helper = NULL;
	/* A backslash in front says that the name was escaped. */
	output += output[0] == '\\';
	if (e->code != ERR_NONE) {
		n->err = *e;
	} else if (strncmp(output, n->name.sha256, IMAGE_SHA_SIZE - 1) != 0) {
		(void)err_set(&n->err, ERR_CORRUPT,
			"the image %s is not what the control plane says: its SHA-256 is %.64s, "
			"not %s",
			n->name.name, output, n->name.sha256);
	} else {
		accept_file(n);
		if (n->err.code == ERR_NONE)
			remember(n);
	}
	if (n->fetched && n->err.code != ERR_NONE)
		(void)unlink(n->path);
	tell(n);
}

static int start_digest(struct entry *n)
{
	const char *const argv[] = {"sha256sum", "--", n->path, NULL};
	int r = helper_start(n->images->event, argv, -1, on_digest, n, &n->helper);

	return r < 0 ? err_errno(&n->err, r, "start sha256sum") : 0;
}

static int on_data(const void *bytes, size_t size, void *userdata)
{
	struct entry *n = userdata;
	const char *from = bytes;

	n->size += size;
	if (n->size > IMAGE_FILE_MAX)
		return -EFBIG;
	while (size > 0) {
		ssize_t done = write(n->fd, from, size);

		if (done < 0 && errno != EINTR)
			return -errno;
		from += MAX(done, 0);
		size -= (size_t)MAX(done, 0);
	}
	return 0;
}

static void on_fetched(const struct http_reply *reply, void *userdata)
{
	struct entry *n = userdata;

	n->call = NULL;
	if (reply->err.code != ERR_NONE)
		n->err = reply->err;
	else if (fsync(n->fd) < 0)
		(void)err_errno(&n->err, -errno, "write the image %s", n->name.name);
	else if (start_digest(n) == 0)
		return;
	(void)unlink(n->path);
	tell(n);
}

static int start_fetch(struct entry *n)
{
	struct images *m = n->images;
	char url[1024], part[IMAGE_SHA_SIZE + 8];
	struct http_call call = {.url = url,
		.ca_file = m->ca_file,
		.bearer = m->token,
		.timeout_ns = UINT64_MAX,
		.stall_s = 60,
		.on_data = on_data,
		.on_data_userdata = n};
	int r;

	if (!m->client)
		return err_set(&n->err, ERR_UNAVAILABLE,
			"the image %s is not on this host, and the control plane not known yet",
			n->name.name);
	(void)snprintf(part, sizeof(part), "%s.part", n->name.sha256);
	(void)path_join(n->path, sizeof(n->path), m->path, part);
	n->fd = open(n->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (n->fd < 0)
		return err_errno(&n->err, -errno, "write the image %s", n->name.name);
	n->fetched = true;
	(void)snprintf(url, sizeof(url), "%s/v1/agent/images/%s", m->url, n->name.name);
	r = http_start(m->client, &call, on_fetched, n, &n->call);
	return r < 0 ? err_errno(&n->err, r, "fetch the image %s", n->name.name) : 0;
}

/* 1: the outcome is there already. */
static int begin(struct entry *n)
{
	struct stat st;

	if (n->name.path[0])
		(void)snprintf(n->path, sizeof(n->path), "%s", n->name.path);
	else
		(void)path_join(n->path, sizeof(n->path), n->images->path, n->name.sha256);
	if (stat(n->path, &st) < 0) {
		if (n->name.path[0] || errno != ENOENT) {
			(void)err_errno(&n->err, -errno, "open the image %s", n->path);
			return 1;
		}
		return start_fetch(n) < 0;
	}
	if (is_known(n)) {
		accept_file(n);
		return 1;
	}
	return start_digest(n) < 0;
}

static struct entry *find(struct images *m, const struct image_name *name)
{
	for (struct entry *n = m->entries; n; n = n->next)
		if (!strcmp(n->name.sha256, name->sha256) && !strcmp(n->name.path, name->path))
			return n;
	return NULL;
}

int images_want(struct images *m, const struct image_name *name, image_fn callback, void *userdata)
{
	struct entry *n = find(m, name);
	struct waiter *w;
	int r = 0;

	if (!n && m->count >= IMAGES_MAX)
		return -ENOSPC;
	w = malloc(sizeof(*w));
	if (!w)
		return -ENOMEM;
	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n) {
			free(w);
			return -ENOMEM;
		}
		n->images = m;
		n->name = *name;
		n->fd = -1;
		n->next = m->entries;
		m->entries = n;
		m->count++;
		if (begin(n))
			r = sd_event_add_defer(m->event, &n->soon, on_soon, n);
	}
	if (r < 0) {
		m->entries = n->next;
		m->count--;
		entry_free(n);
		free(w);
		return r;
	}
	*w = (struct waiter){.next = n->waiters, .callback = callback, .userdata = userdata};
	n->waiters = w;
	return 0;
}
