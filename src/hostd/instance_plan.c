/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hostd/instance_internal.h"
#include "io/json.h"

static const char *const wants[] = {
	[WANT_ABSENT] = "absent", [WANT_STOPPED] = "stopped", [WANT_RUNNING] = "running"};

static int parse_image(const json_t *entry, struct image_name *ret, struct err *e)
{
	const json_t *image = NULL;
	const char *name = "", *sha256 = "", *path = "";
	uint8_t digest[32];
	int r = json_get_object(entry, "image", &image, e);

	if (r == 0)
		r = json_get_string(image, "name", NAME_MAX_LENGTH, &name, e);
	if (r == 0)
		r = json_get_string(image, "sha256", IMAGE_SHA_SIZE - 1, &sha256, e);
	if (r == 0)
		r = json_get_string_or(image, "path", IMAGE_PATH_MAX - 1, "", &path, e);
	if (r < 0)
		return r;
	if (!name_valid(name))
		return err_set(e, ERR_INVALID, "the image's name is %s", name_rule);
	if (hex_decode(sha256, digest, sizeof(digest)) < 0)
		return err_set(e, ERR_INVALID, "the image's sha256 must be 64 hexadecimal digits");
	if (path[0] && path[0] != '/')
		return err_set(e, ERR_INVALID, "the image's path must be absolute");
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	(void)snprintf(ret->path, sizeof(ret->path), "%s", path);
	hex_encode(digest, sizeof(digest), ret->sha256);
	return 0;
}

static int parse_nics(const json_t *entry, struct instance_plan *p, struct err *e)
{
	const json_t *nics = NULL;
	int r = json_get_array_or_null(entry, "nics", INSTANCE_NICS_MAX, &nics, e);

	for (size_t n = 0; r == 0 && n < json_array_size(nics); n++) {
		const char *mac = "";

		r = json_get_string(
			json_array_get(nics, n), "mac", sizeof(p->macs[n]) - 1, &mac, e);
		if (r == 0)
			(void)snprintf(p->macs[n], sizeof(p->macs[n]), "%s", mac);
	}
	p->nics = r == 0 ? json_array_size(nics) : 0;
	return r;
}

/* sosie-vm checks the rest, which only it needs to understand. */
static int parse_plan(const json_t *entry, struct instance_plan *p, struct err *e)
{
	int64_t cores = 0, memory = 0, disk = 0;
	const char *cpu = "";
	int r = parse_image(entry, &p->image, e);

	if (r == 0)
		r = json_get_integer(entry, "cores", 1, 1 << 20, &cores, e);
	if (r == 0)
		r = json_get_integer(entry, "memory_mib", 1, INT32_MAX, &memory, e);
	if (r == 0)
		r = json_get_integer(entry, "disk_bytes", 1, 1LL << 50, &disk, e);
	if (r == 0)
		r = json_get_string_or(entry, "cpu", sizeof(p->cpu) - 1, "max", &cpu, e);
	if (r == 0)
		r = parse_nics(entry, p, e);
	if (r < 0)
		return r;
	p->cores = (uint64_t)cores;
	p->memory_mib = (uint64_t)memory;
	p->disk_bytes = (uint64_t)disk;
	(void)snprintf(p->cpu, sizeof(p->cpu), "%s", cpu);
	return 0;
}

static uint64_t count_of(const json_t *entry, const char *name)
{
	int64_t count;

	return json_get_integer_or(entry, name, 0, INT64_MAX, 0, &count, NULL) == 0
		       ? (uint64_t)count
		       : 0;
}

static bool want_of(const json_t *entry, enum life_want *ret)
{
	const char *state = json_string_value(json_object_get(entry, "state"));

	for (size_t n = 0; state && n < ARRAY_SIZE(wants); n++) {
		if (strcmp(wants[n], state) != 0)
			continue;
		*ret = (enum life_want)n;
		return true;
	}
	return false;
}

void instance_desire(struct instance *i, const json_t *entry)
{
	struct instance_plan plan = {0};
	bool was_invalid = i->plan.invalid[0] != '\0';
	struct err e;

	i->desired = true;
	i->starts = count_of(entry, "starts");
	i->reboots = count_of(entry, "reboots");
	if (!want_of(entry, &i->want)) {
		/* Not understood: it stays as it is, were it new it is not made. */
		i->want = i->state == LIFE_RUNNING ? WANT_RUNNING : WANT_STOPPED;
		(void)snprintf(plan.invalid, sizeof(plan.invalid),
			"the desired state is none of absent, stopped, running");
	} else if (i->want != WANT_ABSENT && parse_plan(entry, &plan, &e) < 0) {
		(void)snprintf(plan.invalid, sizeof(plan.invalid), "%s", e.message);
	}
	i->plan = plan;
	/* A stop, or a mended specification, is as good as being asked to start. */
	if ((i->want == WANT_STOPPED && i->prepared) || (was_invalid && !plan.invalid[0]))
		i->latched = false;
}

static int put_image(json_t *spec, const struct image *image)
{
	return json_object_set_new(spec, "image",
		json_pack(
			"{s:s, s:s}", "path", image->path, "format", image->raw ? "raw" : "qcow2"));
}

static int put_nics(json_t *spec, const struct instance_plan *p)
{
	json_t *nics = json_array();

	for (size_t n = 0; n < p->nics; n++)
		if (json_array_append_new(nics, json_pack("{s:s}", "mac", p->macs[n])) < 0)
			break;
	return json_object_set_new(spec, "nics", nics);
}

int instance_write_spec(struct instance *i, const struct image *image, struct err *e)
{
	const struct host_config *config = &i->host->config;
	const struct instance_plan *p = &i->plan;
	CLEANUP_JSON json_t *spec = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}",
		"version", 1, "id", i->id, "accel", config->kvm ? "kvm" : "tcg", "cpu", p->cpu,
		"cores", (json_int_t)p->cores, "memory_mib", (json_int_t)p->memory_mib, "grace_ms",
		(json_int_t)(config->grace_ns / NSEC_PER_MSEC), "starts", (json_int_t)i->starts,
		"reboots", (json_int_t)i->reboots);
	CLEANUP_FREE char *text = NULL;
	int r = spec ? put_image(spec, image) : -1;

	if (r == 0)
		r = put_nics(spec, p);
	if (r == 0 && config->user.drops)
		r = json_object_set_new(spec, "user",
			json_pack("{s:I, s:I}", "uid", (json_int_t)config->user.uid, "gid",
				(json_int_t)config->user.gid));
	text = r == 0 ? json_dumps(spec, JSON_INDENT(1)) : NULL;
	if (!text)
		return err_errno(e, -ENOMEM, "write spec.json");
	return privileged_write(i->folder, "spec.json", text, strlen(text), 0600, e);
}
