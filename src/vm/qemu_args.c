/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices that are not obvious:
 * - `-S`: the guest is let go only when the QMP connection is ready, because QEMU tells events
 *   only from then on, and each is told once.
 * - maxcpus is at least 2: with one possible CPU, TCG turns the guest's atomic instructions into
 *   plain ones, and a compare-and-swap on memory shared with the host loses updates.
 * - The base image is a node of its own, so that the file name and format in the overlay's header
 *   are never believed, and "backing":null, so that neither is what the image itself names.
 * - `romfile=`: a NIC's boot ROM would only lengthen the boot.
 */
#include "vm/qemu_args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct args {
	char **vector; /* QEMU_ARGS_MAX + 1 */
	size_t n;
	int error;
};

void qemu_args_free(char **args)
{
	for (size_t i = 0; args && args[i]; i++)
		free(args[i]);
	free(args);
}

static void add(struct args *a, const char *format, ...) PRINTF(2, 3);

static void add(struct args *a, const char *format, ...)
{
	va_list values;
	char *text = NULL;

	if (a->error)
		return;
	assert(a->n < QEMU_ARGS_MAX);
	va_start(values, format);
	if (vasprintf(&text, format, values) < 0)
		a->error = -ENOMEM;
	else
		a->vector[a->n++] = text;
	va_end(values);
}

static void option(struct args *a, const char *name, const char *value)
{
	add(a, "%s", name);
	add(a, "%s", value);
}

static void add_machine(struct args *a, const struct vm_spec *s)
{
	option(a, "-name", s->id);
	option(a, "-machine", "q35");
	option(a, "-accel", s->kvm ? "kvm" : "tcg");
	option(a, "-cpu", s->cpu);
	add(a, "-smp");
	add(a, "%u,maxcpus=%u", s->cores, MAX(s->cores, 2U));
	add(a, "-m");
	add(a, "%lluM", (unsigned long long)s->memory_mib);
	option(a, "-sandbox",
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(a, "-nodefaults");
	add(a, "-no-user-config");
	option(a, "-display", "none");
	option(a, "-action", "reboot=reset,shutdown=poweroff");
	add(a, "-S");
}

static void add_disk(struct args *a, const struct vm_spec *s, const struct qemu_fds *fds)
{
	if (fds->image >= 0) {
		add(a, "-add-fd");
		add(a, "fd=%d,set=1", fds->image);
		option(a, "-blockdev",
			"{\"driver\":\"file\",\"node-name\":\"image-file\",\"read-only\":true,"
			"\"filename\":\"/dev/fdset/1\"}");
		add(a, "-blockdev");
		add(a,
			"{\"driver\":\"%s\",\"node-name\":\"image\",\"read-only\":true,"
			"\"file\":\"image-file\"%s}",
			s->image_is_raw ? "raw" : "qcow2",
			s->image_is_raw ? "" : ",\"backing\":null");
	}
	option(a, "-blockdev",
		"{\"driver\":\"file\",\"node-name\":\"disk-file\",\"filename\":\"disk.qcow2\","
		"\"discard\":\"unmap\"}");
	add(a, "-blockdev");
	add(a,
		"{\"driver\":\"qcow2\",\"node-name\":\"disk\",\"file\":\"disk-file\","
		"\"discard\":\"unmap\",\"backing\":%s}",
		fds->image >= 0 ? "\"image\"" : "null");
	option(a, "-device", "virtio-blk-pci,id=disk,drive=disk,bootindex=0");
}

static void add_channels(struct args *a, const struct qemu_fds *fds)
{
	add(a, "-chardev");
	add(a, "socket,id=qmp,fd=%d", fds->qmp);
	option(a, "-mon", "chardev=qmp,mode=control");
	add(a, "-chardev");
	add(a, "socket,id=console,fd=%d,logfile=console.log,logappend=on", fds->console);
	option(a, "-serial", "chardev:console");
	add(a, "-chardev");
	add(a, "socket,id=guest,fd=%d,server=on,wait=off", fds->guest);
	option(a, "-device", "virtio-serial-pci,id=channels");
	option(a, "-device", "virtserialport,bus=channels.0,chardev=guest,name=org.sosie.guest.0");
	option(a, "-object", "rng-random,id=entropy,filename=/dev/urandom");
	option(a, "-device", "virtio-rng-pci,rng=entropy");
}

static void add_nics(struct args *a, const struct vm_spec *s, const struct qemu_fds *fds)
{
	for (size_t i = 0; i < s->nics; i++) {
		add(a, "-netdev");
		add(a, "stream,id=nic%zu,server=on,addr.type=fd,addr.str=%d", i, fds->nics[i]);
		add(a, "-device");
		add(a, "virtio-net-pci,id=nic%zu-device,netdev=nic%zu,mac=%s,romfile=", i, i,
			s->macs[i]);
	}
}

static void add_shared(struct args *a, const struct vm_spec *s, const struct qemu_fds *fds)
{
	if (fds->shared < 0)
		return;
	add(a, "-object");
	add(a, "memory-backend-file,id=shared,share=on,mem-path=/proc/self/fd/%d,size=%llu",
		fds->shared, (unsigned long long)s->shared_bytes);
	option(a, "-device", "ivshmem-plain,memdev=shared");
}

int qemu_args(const struct vm_spec *s, const struct qemu_fds *fds, char ***ret)
{
	struct args a = {.vector = calloc(QEMU_ARGS_MAX + 1, sizeof(char *))};

	if (!a.vector)
		return -ENOMEM;
	add(&a, QEMU_PROGRAM);
	add_machine(&a, s);
	add_disk(&a, s, fds);
	add_channels(&a, fds);
	add_nics(&a, s, fds);
	add_shared(&a, s, fds);
	if (a.error) {
		qemu_args_free(a.vector);
		return a.error;
	}
	*ret = a.vector;
	return 0;
}
