/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy and worst-fit: each instance goes to the acceptable host with the largest part of its
 * room left afterwards, so that load spreads. For equal instances under a spread over hosts or
 * zones greedy is exact: every acceptable host (zone) serves once whichever is taken first, so a
 * choice exists exactly if the greedy one is found. For SPREAD_NONE each host is tried whole.
 */
#include "core/platform/placement.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"

#define REASON_MAX 128

struct batch {
	const struct placement_host *hosts;
	size_t n;
	const struct placement_size *size;
	enum placement_spread spread;
	unsigned int count;
	size_t *chosen;
	unsigned int done; /* how many of chosen are filled in */
};

static unsigned int placed_on(const struct batch *b, size_t host)
{
	unsigned int k = 0;

	for (unsigned int i = 0; i < b->done; i++)
		k += b->chosen[i] == host;
	return k;
}

/* Whether `times` of them fit beside each other; without overflow. */
static bool fits(
	const struct placement_size *size, const struct placement_size *free, uint64_t times)
{
	return (size->cores == 0 || free->cores / size->cores >= times) &&
	       (size->memory == 0 || free->memory / size->memory >= times) &&
	       (size->disk == 0 || free->disk / size->disk >= times);
}

/* The group's member in the zone, as the name of a host; NULL: none. */
static const char *member_in_zone(const struct batch *b, const char *zone)
{
	for (size_t i = 0; i < b->n; i++)
		if (!strcmp(b->hosts[i].zone, zone) &&
			(b->hosts[i].members > 0 || placed_on(b, i) > 0))
			return b->hosts[i].name;
	return NULL;
}

/* The host of a group that must stay together, or NULL. */
static const char *home(const struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->hosts[i].members > 0)
			return b->hosts[i].name;
	return NULL;
}

static void explain_shortage(
	const struct batch *b, size_t host, uint64_t times, char reason[REASON_MAX])
{
	const struct placement_size *free = &b->hosts[host].free;
	const struct placement_size taken = {b->size->cores * (times - 1),
		b->size->memory * (times - 1), b->size->disk * (times - 1)};

	if (!fits(&(struct placement_size){.cores = b->size->cores}, free, times))
		(void)snprintf(reason, REASON_MAX, "%" PRIu64 " cores free",
			free->cores > taken.cores ? free->cores - taken.cores : 0);
	else if (!fits(&(struct placement_size){.memory = b->size->memory}, free, times))
		(void)snprintf(reason, REASON_MAX, "%" PRIu64 " MiB memory free",
			(free->memory > taken.memory ? free->memory - taken.memory : 0) >> 20);
	else
		(void)snprintf(reason, REASON_MAX, "%" PRIu64 " MiB disk free",
			(free->disk > taken.disk ? free->disk - taken.disk : 0) >> 20);
}

/* Whether the host may take `more` further ones; otherwise says why not. */
static bool acceptable(
	const struct batch *b, size_t host, unsigned int more, char reason[REASON_MAX])
{
	const struct placement_host *h = &b->hosts[host];
	uint64_t times = (uint64_t)placed_on(b, host) + more;
	const char *other;

	if (h->closed) {
		(void)snprintf(reason, REASON_MAX, "%s", h->closed);
		return false;
	}
	if (b->spread == SPREAD_HOSTS && (h->members > 0 || times > more)) {
		(void)snprintf(reason, REASON_MAX, "has a member of the group");
		return false;
	}
	other = b->spread == SPREAD_ZONES ? member_in_zone(b, h->zone) : NULL;
	if (other) {
		(void)snprintf(reason, REASON_MAX, "its zone has a member of the group");
		return false;
	}
	other = b->spread == SPREAD_NONE ? home(b) : NULL;
	if (other && h->members == 0) {
		(void)snprintf(reason, REASON_MAX, "the group is on another host");
		return false;
	}
	if (!fits(b->size, &h->free, times)) {
		explain_shortage(b, host, times, reason);
		return false;
	}
	return true;
}

/* How much of the scarcest resource would be left, in instances of this size. */
static uint64_t slack(const struct batch *b, size_t host)
{
	const struct placement_size *free = &b->hosts[host].free;
	uint64_t k = UINT64_MAX, taken = placed_on(b, host);

	if (b->size->cores > 0)
		k = MIN(k, free->cores / b->size->cores);
	if (b->size->memory > 0)
		k = MIN(k, free->memory / b->size->memory);
	if (b->size->disk > 0)
		k = MIN(k, free->disk / b->size->disk);
	return k > taken ? k - taken : 0;
}

/* The best acceptable host for `more` instances, or b->n. */
static size_t best(const struct batch *b, unsigned int more)
{
	char reason[REASON_MAX];
	size_t found = b->n;

	for (size_t i = 0; i < b->n; i++)
		if (acceptable(b, i, more, reason) &&
			(found == b->n || slack(b, i) > slack(b, found)))
			found = i;
	return found;
}

static int refuse(const struct batch *b, unsigned int more, struct err *e)
{
	CLEANUP_BUF struct buf text =
		BUF_INIT(sizeof(e->message) - sizeof("; 18446744073709551615 more hosts"));
	size_t shown = 0;

	(void)buf_printf(&text,
		"no room for %s%u of %u instances of %" PRIu64 " cores, %" PRIu64
		" MiB memory, %" PRIu64 " MiB disk",
		b->done > 0 ? "more than " : "", b->done > 0 ? b->done : b->count, b->count,
		b->size->cores, b->size->memory >> 20, b->size->disk >> 20);
	if (b->n == 0)
		(void)buf_puts(&text, ": there is no host");
	for (size_t i = 0; i < b->n; i++) {
		char reason[REASON_MAX] = "";

		(void)acceptable(b, i, more, reason);
		if (buf_printf(&text, "%s %s: %s", i == 0 ? ":" : ";", b->hosts[i].name, reason) <
			0)
			break;
		shown++;
	}
	if (shown < b->n)
		(void)err_set(
			e, ERR_NO_CAPACITY, "%s; %zu more hosts", buf_text(&text), b->n - shown);
	else
		(void)err_set(e, ERR_NO_CAPACITY, "%s", buf_text(&text));
	return err_hint(e, "ask for less, add a host, or end instances that are not needed");
}

int placement_choose(const struct placement_host *hosts, size_t n,
	const struct placement_size *size, enum placement_spread spread, unsigned int count,
	size_t *ret, struct err *e)
{
	size_t chosen[PLACEMENT_BATCH_MAX];
	struct batch b = {hosts, n, size, spread, count, chosen, 0};
	unsigned int step = spread == SPREAD_NONE ? count : 1;

	if (count < 1 || count > PLACEMENT_BATCH_MAX)
		return err_set(e, ERR_INVALID, "between 1 and %d instances can be placed at once",
			PLACEMENT_BATCH_MAX);
	while (b.done < count) {
		size_t host = best(&b, step);

		if (host == n)
			return refuse(&b, step, e);
		for (unsigned int i = 0; i < step; i++)
			chosen[b.done++] = host;
	}
	memcpy(ret, chosen, count * sizeof(*chosen));
	return 0;
}
