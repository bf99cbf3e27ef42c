/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pure parts of sosie-vm. That QEMU takes the command lines is shown by the system tests.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "unit.h"
#include "vm/console.h"
#include "vm/end.h"
#include "vm/limits.h"
#include "vm/qemu_args.h"
#include "vm/spec.h"

static const char minimal[] = "{\"version\":1,\"id\":\"i-1\",\"accel\":\"tcg\",\"cpu\":\"max\","
			      "\"cores\":1,\"memory_mib\":64}";
static const char full[] =
	"{\"version\":1,\"id\":\"i-2\",\"accel\":\"kvm\",\"cpu\":\"max,-rdrand\",\"cores\":4,"
	"\"memory_mib\":2048,\"image\":{\"path\":\"/images/x, y\",\"format\":\"qcow2\"},"
	"\"nics\":[{\"mac\":\"52:54:00:00:00:01\"},{\"mac\":\"52:54:00:00:00:02\"}],"
	"\"shared\":{\"path\":\"/s\",\"bytes\":1048576},\"user\":{\"uid\":5,\"gid\":6},"
	"\"grace_ms\":1500,\"starts\":3,\"reboots\":2}";

static struct vm_spec parse(const char *text)
{
	struct vm_spec spec;
	struct err e = {0};

	if (vm_spec_parse(text, strlen(text), &spec, &e) < 0)
		fail_msg("%s", e.message);
	return spec;
}

static void a_specification_is_read(void **state)
{
	struct vm_spec s = parse(minimal);

	(void)state;
	assert_string_equal(s.id, "i-1");
	assert_false(s.kvm || s.drops);
	assert_string_equal(s.image, "");
	assert_int_equal(s.grace_ns, 30 * NSEC_PER_SEC);
	s = parse(full);
	assert_true(s.kvm && s.drops && !s.image_is_raw);
	assert_int_equal(s.uid, 5);
	assert_int_equal(s.gid, 6);
	assert_int_equal(s.nics, 2);
	assert_string_equal(s.macs[1], "52:54:00:00:00:02");
	assert_int_equal(s.grace_ns, 1500 * NSEC_PER_MSEC);
	assert_int_equal(s.starts, 3);
	assert_int_equal(s.reboots, 2);
}

static void a_bad_specification_is_refused_by_its_field(void **state)
{
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"\"cores\":4", "\"cores\":0", "/cores"},
		{"\"cores\":4", "\"cores\":256", "/cores"},
		{"\"cores\":4", "\"kernels\":4", "/kernels"},
		{"\"cores\":4,", "", "/cores"},
		{"2048", "15", "/memory_mib"},
		{"max,-rdrand", "max\\n-S", "/cpu"},
		{"max,-rdrand", "help", "/cpu"},
		{"i-2", "../x", "/id"},
		{"kvm", "KVM", "/accel"},
		{"52:54:00:00:00:02", "53:54:00:00:00:02", "/nics/1/mac"},
		{"52:54:00:00:00:02", "52-54-00-00-00-02", "/nics/1/mac"},
		{"52:54:00:00:00:02", "52:54:00:00:00:0", "/mac"},
		{"1048576", "1048577", "/shared/bytes"},
		{"\"uid\":5", "\"uid\":0", "/user/uid"},
		{"\"qcow2\"", "\"vmdk\"", "/image/format"},
		{"\"version\":1", "\"version\":2", "/version"},
		{"}", "", "not JSON"},
	};
	struct vm_spec spec = {.cores = 77};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_BUF struct buf text = BUF_INIT(4096);
		const char *at = strstr(full, cases[i].from);
		struct err e = {0};

		assert_non_null(at);
		assert_ok(buf_append(&text, full, (size_t)(at - full)));
		assert_ok(buf_printf(&text, "%s%s", cases[i].to, at + strlen(cases[i].from)));
		assert_true(vm_spec_parse(buf_text(&text), text.size, &spec, &e) < 0);
		if (!strstr(e.message, cases[i].says))
			fail_msg("%s: %s", cases[i].to, e.message);
		assert_int_equal(spec.cores, 77);
	}
}

/* The arguments joined by newlines. */
static void join(const struct vm_spec *spec, const struct qemu_fds *fds, struct buf *out)
{
	char **args = NULL;

	assert_ok(qemu_args(spec, fds, &args));
	for (size_t i = 0; args[i]; i++)
		assert_ok(buf_printf(out, "%s\n", args[i]));
	qemu_args_free(args);
}

static void the_command_line_follows_the_specification(void **state)
{
	static const char *const expected[] = {
		"qemu-system-x86_64\n-name\ni-2\n-machine\nq35\n-accel\nkvm\n-cpu\nmax,-rdrand\n",
		"-smp\n4,maxcpus=4\n-m\n2048M\n",
		("-sandbox\non,obsolete=deny,elevateprivileges=deny,spawn=deny,"
		 "resourcecontrol=deny\n"),
		"-nodefaults\n-no-user-config\n",
		"-action\nreboot=reset,shutdown=poweroff\n-S\n",
		"-add-fd\nfd=13,set=1\n",
		("{\"driver\":\"qcow2\",\"node-name\":\"image\",\"read-only\":true,"
		 "\"file\":\"image-file\",\"backing\":null}\n"),
		"\"backing\":\"image\"}\n",
		"socket,id=qmp,fd=10\n-mon\nchardev=qmp,mode=control\n",
		"socket,id=console,fd=11,logfile=console.log,logappend=on\n",
		"socket,id=guest,fd=12,server=on,wait=off\n",
		"chardev=guest,name=org.sosie.guest.0\n",
		"stream,id=nic1,server=on,addr.type=fd,addr.str=21\n",
		"virtio-net-pci,id=nic1-device,netdev=nic1,mac=52:54:00:00:00:02,romfile=\n",
		("memory-backend-file,id=shared,share=on,mem-path=/proc/self/fd/14,size=1048576\n"
		 "-device\nivshmem-plain,memdev=shared\n"),
	};
	struct qemu_fds fds = {10, 11, 12, 13, 14, {20, 21}};
	CLEANUP_BUF struct buf text = BUF_INIT(16384);
	struct vm_spec spec = parse(full);

	(void)state;
	join(&spec, &fds, &text);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		if (!strstr(buf_text(&text), expected[i]))
			fail_msg("%s lacks %s", buf_text(&text), expected[i]);
	/* Nothing of what is opened for QEMU is named to it. */
	assert_null(strstr(buf_text(&text), "/images"));
	buf_reset(&text);
	spec = parse(minimal);
	fds.image = fds.shared = -1;
	join(&spec, &fds, &text);
	assert_non_null(strstr(buf_text(&text), "-smp\n1,maxcpus=2\n"));
	assert_non_null(strstr(buf_text(&text), "\"backing\":null}\n"));
	assert_null(strstr(buf_text(&text), "ivshmem"));
	assert_null(strstr(buf_text(&text), "netdev"));
	assert_null(strstr(buf_text(&text), "-add-fd"));
}

#define EXITED(n) ((n) << 8)

static void the_end_is_judged(void **state)
{
	static const struct {
		struct vm_end_facts facts;
		enum vm_end end;
		const char *sentence;
	} cases[] = {
		{{.ran = true, .shutdown = "guest-shutdown"}, VM_END_POWER_OFF,
			"guest powered off"},
		{{.ran = true, .shutdown = "guest-shutdown", .stop_asked = true}, VM_END_STOPPED,
			"stopped on request"},
		{{.ran = true, .shutdown = "host-qmp-quit", .stop_asked = true, .force_used = true},
			VM_END_FORCED, "stopped on request, by force"},
		{{.ran = true, .status = 9, .stop_asked = true, .force_used = true}, VM_END_FORCED,
			"stopped on request, by force"},
		{{.ran = true, .shutdown = "host-qmp-quit"}, VM_END_QUIT, "QEMU was told to quit"},
		{{.ran = true, .shutdown = "host-signal"}, VM_END_SIGNALLED,
			"QEMU was asked to end by a signal"},
		{{.ran = true, .shutdown = "guest-panic"}, VM_END_PANIC, "guest panicked"},
		{{.ran = true, .status = 9}, VM_END_KILLED, "QEMU was killed by signal 9"},
		{{.ran = true, .status = 9, .stop_asked = true}, VM_END_KILLED,
			"QEMU was killed by signal 9"},
		{{.ran = true, .shutdown = "guest-shutdown", .status = 11}, VM_END_KILLED,
			"QEMU was killed by signal 11"},
		{{.ran = true, .status = EXITED(1)}, VM_END_EXITED, "QEMU exited with status 1"},
		{{.status = EXITED(1), .stderr_tail = "qemu-system-x86_64: no such disk\n"},
			VM_END_NOT_STARTED, "QEMU failed to start: no such disk"},
		{{.status = EXITED(1)}, VM_END_NOT_STARTED,
			"QEMU failed to start: it did not say why"},
	};
	char sentence[VM_END_SENTENCE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(vm_end_judge(&cases[i].facts, sentence), cases[i].end);
		assert_string_equal(sentence, cases[i].sentence);
	}
	assert_false(vm_end_is_failure(VM_END_STOPPED));
	assert_true(vm_end_is_failure(VM_END_KILLED));
	assert_string_equal(vm_end_name(VM_END_POWER_OFF), "guest-power-off");
}

struct tree {
	char root[32], own[64], group[128];
};

static void touch(const char *folder, const char *name)
{
	char path[256];
	int fd;

	assert_ok(path_join(path, sizeof(path), folder, name));
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	(void)close(fd);
}

static void holds(const char *folder, const char *name, const char *expected)
{
	char path[256], text[64];
	ssize_t n;
	int fd;

	assert_ok(path_join(path, sizeof(path), folder, name));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n >= 0);
	text[n] = '\0';
	(void)close(fd);
	assert_string_equal(text, expected);
	assert_ok(unlink(path));
}

/* What a kernel with delegated controllers shows, as plain files. */
static void limits_are_written_where_they_can_be(void **state)
{
	const struct vm_spec spec = parse(full);
	struct limits limits;
	struct tree t;

	(void)state;
	(void)snprintf(t.root, sizeof(t.root), "/tmp/sosie-test-XXXXXX");
	assert_non_null(mkdtemp(t.root));
	(void)snprintf(t.own, sizeof(t.own), "%s/agent", t.root);
	(void)snprintf(t.group, sizeof(t.group), "%s/sosie-i-2", t.own);
	limits_set_at(&limits, t.root, "/agent", &spec, 4711);
	assert_true(str_starts_with(limits.verdict, "none: no control group can be made"));
	assert_string_equal(limits.path, "");
	assert_ok(mkdir(t.own, 0755));
	assert_ok(mkdir(t.group, 0755));
	touch(t.group, "memory.max");
	touch(t.group, "cpu.max");
	touch(t.group, "cgroup.procs");
	limits_set_at(&limits, t.root, "/agent", &spec, 4711);
	assert_string_equal(limits.verdict, "memory cpu");
	assert_string_equal(limits.path, t.group);
	holds(t.group, "memory.max", "2684354560");
	holds(t.group, "cpu.max", "450000 100000");
	holds(t.group, "cgroup.procs", "4711");
	limits_drop(&limits);
	assert_true(access(t.group, F_OK) < 0);
	assert_ok(rmdir(t.own));
	assert_ok(rmdir(t.root));
}

static void a_console_log_gives_space_back_and_keeps_its_places(void **state)
{
	char path[] = "/tmp/sosie-test-XXXXXX", block[65536];
	int fd = mkstemp(path);
	size_t total = CONSOLE_LOG_KEPT + (4U << 20);
	struct stat st;

	(void)state;
	assert_true(fd >= 0);
	memset(block, 'c', sizeof(block));
	for (size_t n = 0; n < total; n += sizeof(block))
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	assert_int_equal(console_log_trim(path), total);
	assert_ok(fstat(fd, &st));
	if (st.st_size > 0) {
		assert_int_equal(st.st_size, total);
		assert_true((size_t)st.st_blocks * 512 <= CONSOLE_LOG_KEPT + (1U << 20));
		assert_int_equal(pread(fd, block, 1, (off_t)total - 1), 1);
		assert_int_equal(block[0], 'c');
	}
	assert_int_equal(console_log_trim("/nowhere/at/all"), 0);
	(void)close(fd);
	assert_ok(unlink(path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_specification_is_read),
		cmocka_unit_test(a_bad_specification_is_refused_by_its_field),
		cmocka_unit_test(the_command_line_follows_the_specification),
		cmocka_unit_test(the_end_is_judged),
		cmocka_unit_test(limits_are_written_where_they_can_be),
		cmocka_unit_test(a_console_log_gives_space_back_and_keeps_its_places),
	};

	return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
