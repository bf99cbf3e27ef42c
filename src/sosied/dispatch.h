/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its handler, and from its outcome to the answer.
 */
#ifndef SOSIE_SOSIED_DISPATCH_H
#define SOSIE_SOSIED_DISPATCH_H

#include "sosied/daemon.h"

/* The HTTP server's handler, and what looks at headers of uploads; userdata: struct sosied. */
void dispatch_request(struct http_request *request, void *userdata);
int dispatch_head(struct http_request *request, void *userdata, struct err *e);

/* A new secret, and the hash under which the store knows it. */
int secret_new(const struct sosied *d, char secret[SECRET_SIZE], char hash[STORE_HASH_SIZE],
	struct err *e);

#endif
