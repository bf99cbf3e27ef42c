/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened, and who asked for what: two journals, numbered by revision, only appended to.
 */
#ifndef SOSIE_STORE_EVENTS_H
#define SOSIE_STORE_EVENTS_H

#include "store/tenants.h"

struct store_event {
	uint64_t revision;
	uint64_t at;                   /* nanoseconds since 1970 */
	char tenant_id[STORE_ID_SIZE]; /* empty: the platform's own, for no tenant to see */
	char kind[48];                 /* "instance.started" */
	char subject[STORE_ID_SIZE];   /* what it happened to */
	char data[2048];               /* JSON */
};

/* revision and at are filled in. */
int store_event_append(struct store *s, struct store_event *event, struct err *e);
/* In order, those behind `since`; the last one's revision is where to go on. */
int store_event_since(struct store *s, struct store_scope scope, uint64_t since,
	struct store_event *ret, size_t max, struct err *e);
/* Forgets those older than `before` (nanoseconds since 1970). */
int store_event_trim(struct store *s, uint64_t before, struct err *e);

struct store_audit {
	uint64_t revision;
	uint64_t at; /* nanoseconds since 1970 */
	char tenant_id[STORE_ID_SIZE];
	char token_id[STORE_ID_SIZE]; /* empty: none was shown */
	char role[16];
	char method[8];
	char path[256];
	uint32_t status; /* HTTP */
	char remote[64];
};

int store_audit_append(struct store *s, struct store_audit *entry, struct err *e);
int store_audit_since(struct store *s, struct store_scope scope, uint64_t since,
	struct store_audit *ret, size_t max, struct err *e);
int store_audit_trim(struct store *s, uint64_t before, struct err *e);

#endif
