/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making an instance's folder and disk, and removing them.
 *
 * The disk is made as disk.new and renamed when it is whole, after disk.json has noted what it is
 * an overlay on: a folder without disk.qcow2 was never ready, and is made anew. qemu-img is told
 * not to look at the image (-u), so that nothing parses it with the agent's rights.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/source.h"
#include "hostd/helper.h"
#include "hostd/instance_internal.h"
#include "io/file.h"
#include "io/json.h"
#include "io/record.h"

#define BASE_BYTES_MAX (64U << 10)

/* Fails the preparation and leaves nothing behind. */
static void give_up(struct instance *i, const char *reason)
{
	struct err e;

	if (i->folder >= 0)
		(void)close(i->folder);
	i->folder = -1;
	if (privileged_remove_folder(i->host->folder, i->id, &e) < 0)
		log_control(LOG_ERROR, "a folder is left over", " instance=%s why=%s", i->id,
			log_quote(e.message));
	instance_fail(i, reason);
}

static void on_disk(const struct err *e, const char *output, void *userdata)
{
	struct instance *i = userdata;
	CLEANUP_CLOSE int disk = -1;
	struct err why;

	(void)output;
	i->helper = NULL;
	if (e->code != ERR_NONE) {
		give_up(i, e->message);
		return;
	}
	disk = openat(i->folder, "disk.new", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (disk < 0 || fsync(disk) < 0 ||
		renameat(i->folder, "disk.new", i->folder, "disk.qcow2") < 0 ||
		fsync(i->folder) < 0) {
		(void)err_errno(&why, -errno, "make the disk");
		give_up(i, why.message);
		return;
	}
	i->prepared = true;
	i->latched = false;
	instance_move(i, LIFE_PREPARED, "made ready");
}

static int write_base(struct instance *i, struct err *e)
{
	const struct image_name *image = &i->plan.image;
	CLEANUP_JSON json_t *json = json_pack("{s:s, s:s, s:s}", "name", image->name, "sha256",
		image->sha256, "path", image->path);
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	if (!text)
		return err_errno(e, -ENOMEM, "write disk.json");
	return privileged_write(i->folder, "disk.json", text, strlen(text), 0600, e);
}

static int make_disk(struct instance *i, const struct image *image, struct err *e)
{
	char size[24];
	const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
		image->path, "-F", image->raw ? "raw" : "qcow2", "disk.new", size, NULL};
	int r;

	if (i->plan.disk_bytes < image->bytes)
		return err_set(e, ERR_INVALID,
			"the image %s needs a disk of %" PRIu64 " bytes, not %" PRIu64,
			i->plan.image.name, image->bytes, i->plan.disk_bytes);
	(void)snprintf(size, sizeof(size), "%" PRIu64, i->plan.disk_bytes);
	r = privileged_make_folder(i->host->folder, i->id, &i->folder, e);
	if (r == 0)
		r = write_base(i, e);
	if (r < 0)
		return r;
	r = helper_start(i->host->config.event, argv, i->folder, on_disk, i, &i->helper);
	return r < 0 ? err_errno(e, r, "start qemu-img") : 0;
}

static void on_image(const struct image *image, const struct err *e, void *userdata)
{
	struct instance *i = userdata;
	struct err why;

	if (!image)
		give_up(i, e->message);
	else if (make_disk(i, image, &why) < 0)
		give_up(i, why.message);
}

void instance_prepare(struct instance *i)
{
	int r;

	i->starts_done = i->starts;
	i->reboots_done = i->reboots;
	instance_move(i, LIFE_PREPARE, "being made ready");
	if (i->plan.invalid[0]) {
		instance_fail(i, i->plan.invalid);
		return;
	}
	r = images_want(i->host->images, &i->plan.image, on_image, i);
	if (r < 0)
		give_up(i, strerror(-r));
}

static int read_json(const struct instance *i, const char *name, json_t **ret, struct err *e)
{
	CLEANUP_BUF struct buf text = BUF_INIT(BASE_BYTES_MAX);
	int r = file_read_at(i->folder, name, &text);

	if (r < 0)
		return err_errno(e, r, "read %s", name);
	return json_parse(buf_text(&text), text.size, NULL, ret, e);
}

int instance_read_base(const struct instance *i, struct image_name *ret, struct err *e)
{
	CLEANUP_JSON json_t *json = NULL;
	const char *name = "", *sha256 = "", *path = "";
	int r = read_json(i, "disk.json", &json, e);

	if (r == 0)
		r = json_get_string(json, "name", NAME_MAX_LENGTH, &name, e);
	if (r == 0)
		r = json_get_string(json, "sha256", IMAGE_SHA_SIZE - 1, &sha256, e);
	if (r == 0)
		r = json_get_string(json, "path", IMAGE_PATH_MAX - 1, &path, e);
	if (r < 0)
		return r;
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	(void)snprintf(ret->sha256, sizeof(ret->sha256), "%s", sha256);
	(void)snprintf(ret->path, sizeof(ret->path), "%s", path);
	return 0;
}

void instance_read_counters(struct instance *i)
{
	CLEANUP_JSON json_t *json = NULL;
	int64_t starts, reboots;

	if (read_json(i, "spec.json", &json, NULL) < 0 ||
		json_get_integer_or(json, "starts", 0, INT64_MAX, 0, &starts, NULL) < 0 ||
		json_get_integer_or(json, "reboots", 0, INT64_MAX, 0, &reboots, NULL) < 0)
		return;
	i->starts_done = (uint64_t)starts;
	i->reboots_done = (uint64_t)reboots;
}

void instance_remove(struct instance *i)
{
	struct err e = {0};
	int r = i->folder >= 0 ? instance_drain(i, &e) : 0;

	instance_move(i, LIFE_REMOVE, "being removed");
	if (r == 0)
		r = privileged_remove_folder(i->host->folder, i->id, &e);
	if (r == 0) {
		r = journal_removed(
			i->host->journal, i->id, source_system.clock_ns(NULL, CLOCK_REALTIME));
		if (r < 0)
			(void)err_errno(&e, r, "write down the removal");
	}
	if (r < 0) {
		instance_move(i, LIFE_BROKE, "%s", e.message);
		instance_cool(i);
		return;
	}
	if (i->folder >= 0)
		(void)close(i->folder);
	i->folder = -1;
	i->prepared = i->latched = false;
	i->pid = i->console_bytes = 0;
	instance_move(i, LIFE_REMOVED, "removed");
	if (i->host->happened)
		i->host->happened(i->host->userdata);
}
