/* SPDX-License-Identifier: Apache-2.0 */
#include "vm/spec.h"

#include <stdio.h>
#include <string.h>

#include "io/json.h"

#define VERSION 1

static const char *const accelerators[] = {"tcg", "kvm", NULL};
static const char *const formats[] = {"qcow2", "raw", NULL};

static const struct json_field nic_fields[] = {
	{"mac", JSON_FIELD_STRING, JSON_REQUIRED, VM_MAC_SIZE - 1, VM_MAC_SIZE - 1},
	{0},
};

static const struct json_field nic_item = {.type = JSON_FIELD_OBJECT, .fields = nic_fields};

static const struct json_field image_fields[] = {
	{"path", JSON_FIELD_STRING, JSON_REQUIRED, 1, VM_PATH_MAX - 1},
	{"format", JSON_FIELD_CHOICE, JSON_REQUIRED, .choices = formats},
	{0},
};

static const struct json_field shared_fields[] = {
	{"path", JSON_FIELD_STRING, JSON_REQUIRED, 1, VM_PATH_MAX - 1},
	{"bytes", JSON_FIELD_INTEGER, JSON_REQUIRED, 4096, 1LL << 40},
	{0},
};

static const struct json_field user_fields[] = {
	{"uid", JSON_FIELD_INTEGER, JSON_REQUIRED, 1, UINT32_MAX - 1},
	{"gid", JSON_FIELD_INTEGER, JSON_REQUIRED, 1, UINT32_MAX - 1},
	{0},
};

static const struct json_field fields[] = {
	{"version", JSON_FIELD_INTEGER, JSON_REQUIRED, VERSION, VERSION},
	{"id", JSON_FIELD_NAME, JSON_REQUIRED},
	{"accel", JSON_FIELD_CHOICE, JSON_REQUIRED, .choices = accelerators},
	{"cpu", JSON_FIELD_STRING, JSON_REQUIRED, 1, VM_CPU_MAX - 1},
	{"cores", JSON_FIELD_INTEGER, JSON_REQUIRED, 1, VM_CORES_MAX},
	{"memory_mib", JSON_FIELD_INTEGER, JSON_REQUIRED, VM_MEMORY_MIB_MIN, VM_MEMORY_MIB_MAX},
	{"image", JSON_FIELD_OBJECT, JSON_OPTIONAL, .fields = image_fields},
	{"nics", JSON_FIELD_ARRAY, JSON_OPTIONAL, 0, VM_NICS_MAX, .items = &nic_item},
	{"shared", JSON_FIELD_OBJECT, JSON_OPTIONAL, .fields = shared_fields},
	{"user", JSON_FIELD_OBJECT, JSON_OPTIONAL, .fields = user_fields},
	{"grace_ms", JSON_FIELD_INTEGER, JSON_OPTIONAL, 0, VM_GRACE_MS_MAX},
	{"starts", JSON_FIELD_INTEGER, JSON_OPTIONAL, 0, INT64_MAX},
	{"reboots", JSON_FIELD_INTEGER, JSON_OPTIONAL, 0, INT64_MAX},
	{0},
};

/* A unicast address; QEMU takes other ones, and the network then does not work. */
static bool mac_valid(const char *mac)
{
	uint8_t byte;

	for (int i = 0; i < 6; i++) {
		char digits[3] = {mac[3 * i], mac[3 * i + 1]};

		if (hex_decode(digits, &byte, 1) < 0 || mac[3 * i + 2] != (i < 5 ? ':' : '\0') ||
			(i == 0 && (byte & 1)))
			return false;
	}
	return true;
}

/* QEMU's model and features, and nothing that could be more than one argument's worth. */
static bool cpu_valid(const char *cpu)
{
	for (const char *c = cpu; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			    (*c >= '0' && *c <= '9') || strchr("-+_.,=", *c)))
			return false;
	return strcmp(cpu, "help") != 0;
}

static uint64_t number(const json_t *object, const char *name, uint64_t fallback)
{
	const json_t *value = json_object_get(object, name);

	return value ? (uint64_t)json_integer_value(value) : fallback;
}

static void copy(char *out, size_t size, const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	/* The length was checked by the table. */
	(void)snprintf(out, size, "%s", value ? value : "");
}

static int fill_nics(const json_t *nics, struct vm_spec *s, struct err *e)
{
	s->nics = json_array_size(nics);
	for (size_t i = 0; i < s->nics; i++) {
		copy(s->macs[i], sizeof(s->macs[i]), json_array_get(nics, i), "mac");
		if (!mac_valid(s->macs[i]))
			return err_set(e, ERR_INVALID,
				"field /nics/%zu/mac must be a unicast address such as "
				"52:54:00:12:34:56",
				i);
	}
	return 0;
}

static int fill(const json_t *json, struct vm_spec *s, struct err *e)
{
	const json_t *image = json_object_get(json, "image");
	const json_t *shared = json_object_get(json, "shared");
	const json_t *user = json_object_get(json, "user");
	const char *format = json_string_value(json_object_get(image, "format"));
	const char *accel = json_string_value(json_object_get(json, "accel"));

	copy(s->id, sizeof(s->id), json, "id");
	copy(s->cpu, sizeof(s->cpu), json, "cpu");
	copy(s->image, sizeof(s->image), image, "path");
	copy(s->shared_path, sizeof(s->shared_path), shared, "path");
	s->kvm = !strcmp(accel, "kvm");
	s->image_is_raw = format && !strcmp(format, "raw");
	s->cores = (unsigned int)number(json, "cores", 1);
	s->memory_mib = number(json, "memory_mib", 0);
	s->shared_bytes = number(shared, "bytes", 0);
	s->drops = user;
	s->uid = (uid_t)number(user, "uid", 0);
	s->gid = (gid_t)number(user, "gid", 0);
	s->grace_ns = number(json, "grace_ms", 30000) * (uint64_t)NSEC_PER_MSEC;
	s->starts = number(json, "starts", 0);
	s->reboots = number(json, "reboots", 0);
	if (!cpu_valid(s->cpu))
		return err_set(e, ERR_INVALID,
			"field /cpu must be a CPU model of QEMU, as in \"max,-rdrand\"");
	if (s->shared_bytes & (s->shared_bytes - 1))
		return err_set(e, ERR_INVALID, "field /shared/bytes must be a power of two");
	return fill_nics(json_object_get(json, "nics"), s, e);
}

int vm_spec_parse(const void *bytes, size_t n, struct vm_spec *ret, struct err *e)
{
	const struct json_limits limits = {.max_bytes = VM_SPEC_BYTES_MAX};
	CLEANUP_JSON json_t *json = NULL;
	struct vm_spec s = {0};
	int r = json_parse(bytes, n, &limits, &json, e);

	if (r == 0)
		r = json_check(json, fields, e);
	if (r == 0)
		r = fill(json, &s, e);
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}
