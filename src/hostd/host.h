/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host as a whole: the instances that are here or ought to be, brought from what is to what
 * should be.
 */
#ifndef SOSIE_HOSTD_HOST_H
#define SOSIE_HOSTD_HOST_H

#include <jansson.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/macro.h"
#include "hostd/image.h"
#include "hostd/journal.h"
#include "hostd/privileged.h"

#define HOST_INSTANCES_MAX 512

struct instance;

/* What does not change while the agent runs. */
struct host_config {
	sd_event *event;
	int state;              /* the open state folder */
	const char *state_path; /* absolute */
	const char *vm_program; /* absolute path of sosie-vm */
	struct guest_user user;
	bool kvm;
	uint64_t grace_ns; /* for a guest to power off or reboot by itself */
};

struct host {
	struct host_config config;
	int folder; /* STATE/instances */
	struct images *images;
	struct journal *journal;
	struct instance *instances;
	unsigned int count;
	uint64_t revision; /* of the desired state that was taken over last */
	bool told;         /* there was one since the agent's start */
	sd_event_source *soon;
	void (*changed)(void *userdata);  /* the observed state is another one now */
	void (*happened)(void *userdata); /* there are new events in the journal */
	void *userdata;
};

/* Opens the state and adopts what runs. Strings of the config are borrowed. */
int host_new(const struct host_config *config, struct host **ret, struct err *e);
/* Guests go on. */
void host_free(struct host *host);
DEFINE_CLEANUP(struct host *, host_free);

/*
 * Takes over a desired state as a whole. An entry that is not understood makes its own instance
 * fail and no other. ERR_INVALID when the document itself is not understood: then nothing changes.
 */
int host_desire(struct host *host, const json_t *desired, struct err *e);
/* The list of what is here. NULL when out of memory. */
json_t *host_observed(const struct host *host);
/* Asks every guest's supervisor how it is; the answers come later. */
void host_refresh(struct host *host);

/* An instance stands elsewhere: there may be something to do. */
void host_changed(struct host *host);
/* Adds an event of the agent's own. data: taken. */
void host_tell(struct host *host, const char *kind, const char *subject, json_t *data);

#endif
