/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: uploaded into the state folder, or registered where they lie.
 *
 * An upload is written to STATE/images/upload-…, hashed on its way, and gets its row once it is
 * whole and on disk; a row never stands for half a file, and a file without a row is removed at
 * the next start. A registered file gets its row at once, in state importing, and is hashed piece
 * by piece between other work; a restart begins that anew.
 */
#include "sosied/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/str.h"
#include "io/digest.h"
#include "sosied/feed.h"
#include "sosied/routes.h"

#define UPLOAD_PREFIX "upload-"
#define FILE_PATH_MAX 511
/* Read and hashed at a time, between other work. */
#define DIGEST_BLOCK (256U << 10)
#define LIST_PAGE    64

const struct json_field schema_image[] = {
	{.name = "name",
		.type = JSON_FIELD_NAME,
		.required = JSON_REQUIRED,
		.description = "the image's name"},
	{.name = "version", .type = JSON_FIELD_NAME, .description = "[1]"},
	{.name = "path",
		.type = JSON_FIELD_STRING,
		.required = JSON_REQUIRED,
		.min = 1,
		.max = FILE_PATH_MAX,
		.description = "absolute, on the control plane's machine"},
	{.name = "public",
		.type = JSON_FIELD_BOOLEAN,
		.description = "for every tenant to see [false]"},
	{0},
};

static json_t *image_view(struct call *c, const void *row)
{
	const struct store_image *i = row;
	struct store_tenant tenant = {0};

	(void)store_tenant_get(c->d->store, i->tenant_id, &tenant, NULL);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:b,s:s,s:o,s:o}", "id", i->id, "name",
		i->name, "version", i->version, "tenant", tenant.name, "format",
		store_name(&store_formats, i->format), "size", json_u64(i->size), "sha256",
		json_or_null(i->sha256), "public", i->public, "state",
		store_name(&store_image_states, i->state), "created", json_time(i->created),
		"revision", json_u64(i->revision));
}

int image_find(struct call *c, const char *name, struct store_image *ret, struct err *e)
{
	char plain[STORE_NAME_SIZE];
	size_t n = strcspn(name, ":");

	if (is_id(name))
		return store_image_get(c->d->store, c->scope, name, ret, e);
	if (n >= sizeof(plain))
		return err_set(e, ERR_NOT_FOUND, "no image '%.64s'", name);
	memcpy(plain, name, n);
	plain[n] = '\0';
	return store_image_by_name(
		c->d->store, c->tenant.id, plain, name[n] == ':' ? name + n + 1 : "", ret, e);
}

int image_find_ready(struct call *c, const char *name, struct store_image *ret, struct err *e)
{
	struct store_image image = {0};
	int r = image_find(c, name, &image, e);

	if (r < 0)
		return r;
	if (image.state != STORE_IMAGE_READY)
		return err_set(e, ERR_CONFLICT, "image %s is not ready but %s", image.name,
			store_name(&store_image_states, image.state));
	*ret = image;
	return 0;
}

static int image_read(
	struct call *c, const struct store_page *after, void *rows, size_t max, struct err *e)
{
	return store_image_list(c->d->store, c->scope, after, rows, max, e);
}

int route_images_list(struct call *c, json_t **ret, struct err *e)
{
	static const struct listing listing = {sizeof(struct store_image),
		offsetof(struct store_image, id), offsetof(struct store_image, tenant_id),
		image_read, image_view};

	return call_list(c, &listing, ret, e);
}

int route_images_show(struct call *c, json_t **ret, struct err *e)
{
	struct store_image image = {0};
	int r = image_find(c, c->params[0], &image, e);

	if (r < 0)
		return r;
	c->revision = image.revision;
	*ret = image_view(c, &image);
	return 0;
}

/* Opens a regular file and looks into it. */
static int open_image(const char *path, int *ret_fd, struct image_facts *ret, struct err *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	uint8_t header[IMAGE_HEADER_SIZE];
	struct stat st;
	ssize_t n;
	int r;

	if (fd < 0)
		return errno == ENOENT ? err_set(e, ERR_INVALID, "/path: there is no file %s", path)
				       : err_errno(e, -errno, "open %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "/path: %s is not a file", path);
	n = pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return err_errno(e, -errno, "read %s", path);
	r = image_inspect(header, (size_t)n, (uint64_t)st.st_size, ret, e);
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static int create_row(struct call *c, struct store_image *image, const char *name,
	const char *version, bool public, struct err *e)
{
	int r;

	COPY(image->tenant_id, c->tenant.id);
	COPY(image->name, name);
	COPY(image->version, version);
	COPY(image->metadata, "{}");
	image->public = public;
	r = store_image_create(c->d->store, image, e);
	if (r < 0)
		return r;
	c->revision = image->revision;
	return event_add(c->d->store, image->tenant_id, "image.created", image->id,
		json_pack("{s:s,s:s}", "name", image->name, "version", image->version), e);
}

int route_images_create(struct call *c, json_t **ret, struct err *e)
{
	const char *path = json_string_value(json_object_get(c->body, "path"));
	const char *version = json_string_value(json_object_get(c->body, "version"));
	struct store_image image = {.state = STORE_IMAGE_IMPORTING};
	CLEANUP_CLOSE int fd = -1;
	struct image_facts facts = {0};
	int r;

	if (path[0] != '/')
		return err_set(e, ERR_INVALID, "/path: must be absolute");
	r = open_image(path, &fd, &facts, e);
	if (r < 0)
		return r;
	image.format = facts.format;
	image.size = facts.size;
	COPY(image.path, path);
	r = create_row(c, &image, json_string_value(json_object_get(c->body, "name")),
		version ? version : "1", json_is_true(json_object_get(c->body, "public")), e);
	if (r < 0)
		return r;
	*ret = image_view(c, &image);
	return digests_start(c->d, e);
}

int route_images_delete(struct call *c, json_t **ret, struct err *e)
{
	struct store_image image = {0};
	int r = image_find(c, c->params[0], &image, e);

	(void)ret;
	if (r < 0)
		return r;
	/* A public one is seen by all and deleted by its owner. */
	if (!call_is_provider(c) && strcmp(image.tenant_id, c->tenant.id) != 0)
		return err_set(e, ERR_FORBIDDEN, "image %s is not yours", image.name);
	r = call_about(c, image.tenant_id);
	if (r == 0)
		r = call_match(c, image.revision, e);
	if (r == 0)
		r = store_image_delete(
			c->d->store, store_scope_tenant(image.tenant_id), image.id, e);
	if (r == 0)
		r = event_add(c->d->store, image.tenant_id, "image.deleted", image.id,
			json_pack("{s:s}", "name", image.name), e);
	if (r < 0)
		return r;
	/* What was registered where it lies is not ours to remove. */
	if (str_starts_with(image.path, c->d->images))
		COPY(c->unlink, image.path);
	return 0;
}

/* Uploads */

struct upload {
	int fd;
	char path[PATH_MAX];
	struct digest *digest;
	uint8_t header[IMAGE_HEADER_SIZE];
	size_t header_size;
	uint64_t size;
	bool kept; /* the file has a row, or another name */
};

static void upload_free(void *userdata)
{
	struct upload *u = userdata;

	if (u->fd >= 0)
		(void)close(u->fd);
	if (!u->kept && u->path[0])
		(void)unlink(u->path);
	digest_free(u->digest);
	free(u);
}

static int write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

static int upload_part(
	struct http_request *request, const void *bytes, size_t n, void *userdata, struct err *e)
{
	struct upload *u = userdata;
	size_t head = MIN(n, sizeof(u->header) - u->header_size);
	int r = write_all(u->fd, bytes, n);

	(void)request;
	if (r == -ENOSPC || r == -EDQUOT)
		return err_set(e, ERR_NO_CAPACITY, "the disk of the images is full");
	if (r == 0)
		r = digest_add(u->digest, bytes, n);
	if (r < 0)
		return err_errno(e, r, "store the image");
	memcpy(u->header + u->header_size, bytes, head);
	u->header_size += head;
	u->size += n;
	return 0;
}

int image_upload_begin(struct call *c, struct err *e)
{
	struct upload *u = calloc(1, sizeof(*u));
	int r = -ENOMEM;

	if (!u)
		return err_errno(e, r, "take an upload");
	u->fd = -1;
	u->digest = digest_new();
	if (u->digest) {
		(void)snprintf(u->path, sizeof(u->path), "%.*s/" UPLOAD_PREFIX "XXXXXX",
			FILE_PATH_MAX, c->d->images);
		u->fd = mkostemp(u->path, O_CLOEXEC);
		r = u->fd < 0 ? -errno : 0;
	}
	if (r < 0) {
		u->path[0] = '\0';
		upload_free(u);
		return err_errno(e, r, "take an upload");
	}
	http_take_body(c->request, IMAGE_FILE_MAX, upload_part, upload_free, u);
	return 0;
}

/* The file under its digest's name, durable before the row is. */
static int upload_keep(struct call *c, struct upload *u, struct store_image *image, struct err *e)
{
	CLEANUP_CLOSE int folder = open(c->d->images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint8_t tag[8];
	char digits[2 * sizeof(tag) + 1];
	int n, r = c->d->source->random(c->d->source->context, tag, sizeof(tag));

	if (r < 0)
		return err_errno(e, r, "name the image's file");
	hex_encode(tag, sizeof(tag), digits);
	n = snprintf(
		image->path, sizeof(image->path), "%s/%s-%s", c->d->images, image->sha256, digits);
	if (n < 0 || (size_t)n >= sizeof(image->path))
		return err_set(e, ERR_INTERNAL, "the state folder's path is too long");
	if (folder < 0 || fsync(u->fd) < 0 || fchmod(u->fd, 0644) < 0 ||
		rename(u->path, image->path) < 0 || fsync(folder) < 0)
		return err_errno(e, -errno, "keep the image's file");
	(void)snprintf(u->path, sizeof(u->path), "%s", image->path);
	return 0;
}

static int check_asked_format(struct call *c, const struct image_facts *facts, struct err *e)
{
	const char *format = http_query(c->request, "format");
	const char *found = store_name(&store_formats, facts->format);

	if (format && strcmp(format, found) != 0)
		return err_set(
			e, ERR_INVALID, "'format' says %.16s, and the file is %s", format, found);
	return 0;
}

int route_images_upload(struct call *c, json_t **ret, struct err *e)
{
	struct upload *u = http_taken_body(c->request);
	const char *version = http_query(c->request, "version");
	const char *public = http_query(c->request, "public");
	struct store_image image = {.state = STORE_IMAGE_READY};
	struct image_facts facts = {0};
	int r;

	if (!u)
		return err_set(e, ERR_USAGE, "the request has no body");
	if (!name_valid(c->params[0]) || is_id(c->params[0]) || (version && !name_valid(version)))
		return err_set(e, ERR_INVALID, "an image's name and version are %s", name_rule);
	if (public && strcmp(public, "false") != 0 && !call_is_provider(c))
		return err_set(e, ERR_FORBIDDEN, "only the provider makes images public");
	r = image_inspect(u->header, u->header_size, u->size, &facts, e);
	if (r == 0)
		r = check_asked_format(c, &facts, e);
	if (r < 0)
		return r;
	r = digest_end(u->digest, image.sha256);
	if (r < 0)
		return err_errno(e, r, "hash the image");
	image.format = facts.format;
	image.size = facts.size;
	r = upload_keep(c, u, &image, e);
	if (r == 0)
		r = create_row(c, &image, c->params[0], version ? version : "1",
			public && strcmp(public, "false") != 0, e);
	if (r < 0)
		return r;
	*ret = image_view(c, &image);
	return 0;
}

void image_upload_committed(struct http_request *request)
{
	struct upload *u = http_taken_body(request);

	u->kept = true;
}

/* Digests of registered files */

struct digests {
	sd_event_source *work;
	struct store_image image; /* being read; id "": none */
	struct digest *digest;
	int fd;
};

void digests_free(struct digests *g)
{
	if (!g)
		return;
	loop_drop(&g->work);
	digest_free(g->digest);
	if (g->fd >= 0)
		(void)close(g->fd);
	free(g);
}

/* The first image of which that is true. 1: there is one. */
static int search(struct sosied *d, bool (*wanted)(const struct store_image *, const char *),
	const char *path, struct store_image *ret, struct err *e)
{
	CLEANUP_FREE struct store_image *rows = zalloc(LIST_PAGE, sizeof(*rows));
	char tenant_id[STORE_ID_SIZE] = "", id[STORE_ID_SIZE] = "";
	const struct store_page after = {tenant_id, id};
	int n;

	if (!rows)
		return err_errno(e, -ENOMEM, "look for images");
	do {
		n = store_image_list(d->store, store_scope_all(), &after, rows, LIST_PAGE, e);
		for (int i = 0; i < n; i++)
			if (wanted(&rows[i], path)) {
				*ret = rows[i];
				return 1;
			}
		if (n == LIST_PAGE) {
			COPY(tenant_id, rows[n - 1].tenant_id);
			COPY(id, rows[n - 1].id);
		}
	} while (n == LIST_PAGE);
	return n < 0 ? n : 0;
}

static bool is_importing(const struct store_image *image, const char *path)
{
	(void)path;
	return image->state == STORE_IMAGE_IMPORTING;
}

static bool lies_at(const struct store_image *image, const char *path)
{
	return !strcmp(image->path, path);
}

static int write_outcome(
	struct sosied *d, struct store_image *image, const char *detail, struct err *e)
{
	CLEANUP_TRANSACTION struct store_transaction t = {0};
	bool ready = image->state == STORE_IMAGE_READY;
	int r = store_begin(d->store, STORE_WRITE, &t, e);

	if (r == 0)
		r = store_image_update(d->store, store_scope_all(), image, e);
	if (r == 0)
		r = event_add(d->store, image->tenant_id, ready ? "image.ready" : "image.failed",
			image->id,
			json_pack("{s:s,s:o}", "name", image->name, "detail", json_or_null(detail)),
			e);
	return r < 0 ? r : store_commit(&t, e);
}

/* Ends the work on the present image, well or with the reason. */
static void end_image(struct sosied *d, const struct err *failed)
{
	struct digests *g = d->digests;
	struct err e = {0};

	g->image.state = failed ? STORE_IMAGE_FAILED : STORE_IMAGE_READY;
	/* One that has been deleted meanwhile is not found, and that is that. */
	if (write_outcome(d, &g->image, failed ? failed->message : "", &e) < 0 &&
		e.code != ERR_NOT_FOUND)
		log_control(LOG_ERROR, "image's outcome not written", " image=%s error=%s",
			g->image.name, log_quote(e.message));
	digest_free(TAKE_PTR(g->digest));
	if (g->fd >= 0)
		(void)close(TAKE_FD(g->fd));
	g->image = (struct store_image){0};
	feed_kick(d);
}

static void begin_image(struct sosied *d)
{
	struct digests *g = d->digests;
	struct image_facts facts = {0};
	struct err e = {0};
	int r = open_image(g->image.path, &g->fd, &facts, &e);

	g->digest = r == 0 ? digest_new() : NULL;
	if (r == 0 && !g->digest)
		r = err_errno(&e, -ENOMEM, "hash %s", g->image.path);
	if (r < 0)
		end_image(d, &e);
}

static void read_block(struct sosied *d)
{
	CLEANUP_FREE char *block = zalloc(DIGEST_BLOCK, 1);
	struct digests *g = d->digests;
	struct err e = {0};
	ssize_t n = block ? read(g->fd, block, DIGEST_BLOCK) : -1;
	int r = n < 0 ? -EIO : 0;

	if (n > 0)
		r = digest_add(g->digest, block, (size_t)n);
	else if (n == 0)
		r = digest_end(g->digest, g->image.sha256);
	if (r < 0) {
		(void)err_errno(&e, r, "hash %s", g->image.path);
		end_image(d, &e);
	} else if (n == 0) {
		end_image(d, NULL);
	}
}

static int on_work(sd_event_source *source, void *userdata)
{
	struct sosied *d = userdata;
	struct err e = {0};
	int r;

	if (d->digests->image.id[0]) {
		read_block(d);
		return 0;
	}
	r = search(d, is_importing, "", &d->digests->image, &e);
	if (r > 0) {
		begin_image(d);
		return 0;
	}
	if (r < 0)
		log_control(LOG_ERROR, "images not read", " error=%s", log_quote(e.message));
	return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* Files that uploads left behind, when the process ended before they had a row. */
static void remove_leftovers(struct sosied *d)
{
	DIR *directory = opendir(d->images);
	struct store_image image = {0};
	char path[PATH_MAX];
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		if (entry->d_name[0] == '.' ||
			path_join(path, sizeof(path), d->images, entry->d_name) < 0)
			continue;
		if (search(d, lies_at, path, &image, NULL) == 0) {
			log_control(LOG_INFO, "file without an image removed", " path=%s",
				log_quote(path));
			(void)unlink(path);
		}
	}
	if (directory)
		(void)closedir(directory);
}

int digests_start(struct sosied *d, struct err *e)
{
	struct digests *g = d->digests;
	int r;

	if (g)
		return sd_event_source_set_enabled(g->work, SD_EVENT_ON) < 0
			       ? err_set(e, ERR_INTERNAL, "images cannot be hashed")
			       : 0;
	remove_leftovers(d);
	g = calloc(1, sizeof(*g));
	if (!g)
		return err_errno(e, -ENOMEM, "hash images");
	g->fd = -1;
	d->digests = g;
	r = sd_event_add_defer(d->event, &g->work, on_work, d);
	/* After whatever else there is to do. */
	if (r >= 0)
		r = sd_event_source_set_priority(g->work, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_event_source_set_enabled(g->work, SD_EVENT_ON);
	return r < 0 ? err_errno(e, r, "hash images") : 0;
}
