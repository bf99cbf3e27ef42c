/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who leads a group: its primary member, and the host from which its values come. Pure.
 *
 * A primary stays until it is lost and does not come back by itself. The source stays on its host
 * as long as that is heard of and has a member. With nobody left everything stays as it is, so
 * that the last leader is known when one returns.
 */
#ifndef SOSIE_CORE_PLATFORM_SUCCESSION_H
#define SOSIE_CORE_PLATFORM_SUCCESSION_H

#include <stdbool.h>

#include "base/macro.h"

/* The most members of one group. */
#define SUCCESSION_MEMBERS_MAX 64
#define SUCCESSION_NONE        SIZE_MAX

struct succession_member {
	unsigned int host; /* hosts numbered by the caller, from 0 */
	bool placed;       /* on a host at all */
	bool host_heard;
	bool running;
	bool lost; /* cannot lead */
};

/*
 * The members in the order in which they succeed each other. *primary (an index, SUCCESSION_NONE:
 * none yet) and *source (a host's number, SUCCESSION_NONE: none yet) are what is, and become what
 * should be. True when either changed.
 */
bool succession(const struct succession_member *members, size_t n, size_t *primary, size_t *source);

#endif
