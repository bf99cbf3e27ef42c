/* SPDX-License-Identifier: Apache-2.0 */
#include "core/platform/succession.h"

static size_t successor(const struct succession_member *members, size_t n)
{
	size_t waiting = SUCCESSION_NONE;

	for (size_t i = 0; i < n; i++) {
		if (members[i].lost)
			continue;
		if (members[i].running)
			return i;
		if (waiting == SUCCESSION_NONE)
			waiting = i;
	}
	return waiting;
}

static bool serves(const struct succession_member *members, size_t n, size_t host)
{
	for (size_t i = 0; i < n; i++)
		if (members[i].placed && members[i].host_heard && members[i].host == host)
			return true;
	return false;
}

bool succession(const struct succession_member *members, size_t n, size_t *primary, size_t *source)
{
	bool changed = false;

	if (*primary >= n || members[*primary].lost) {
		size_t next = successor(members, n);

		if (next != SUCCESSION_NONE && next != *primary) {
			*primary = next;
			changed = true;
		}
	}
	if ((*source == SUCCESSION_NONE || !serves(members, n, *source)) && *primary < n &&
		!members[*primary].lost && members[*primary].host != *source) {
		*source = members[*primary].host;
		changed = true;
	}
	return changed;
}
