/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups as this machine's user keeps them: a folder per group under the state folder,
 *
 *   STATE/groups/NAME/segment        the values (core/values/segment.h)
 *   STATE/groups/NAME/journal        who consumed what when (core/values/journal.h)
 *   STATE/groups/NAME/recorder.lock  held by the process that writes the journal
 *
 * where STATE is $SOSIE_STATE_DIR, else $XDG_STATE_HOME/sosie, else ~/.local/state/sosie.
 * For the control path: functions here allocate, open files and explain their errors.
 */
#ifndef SOSIE_LIB_VALUES_GROUP_H
#define SOSIE_LIB_VALUES_GROUP_H

#include <limits.h>

#include "core/values/segment.h"

#define GROUP_SIZE_DEFAULT (1ULL << 30)

struct group {
	char name[NAME_MAX_LENGTH + 1];
	char directory[PATH_MAX];
	char path[PATH_MAX]; /* of the segment */
	int fd;              /* the segment file */
	struct segment segment;
};

struct group_options {
	uint64_t size; /* bytes that the segment may grow to; 0: GROUP_SIZE_DEFAULT */
	enum full_policy full_policy;
	bool audit_full;
	bool whole; /* all of it is backed by storage from the start, as guests need it */
};

/* STATE, made when it is not there. out: PATH_MAX bytes. */
int state_directory(char *out, struct err *e);

/* ERR_CONFLICT when it exists. Nothing is left behind by a creation that fails. */
int group_create(const char *name, const struct group_options *options, struct err *e);
/* Maps the group's segment after checking it. ERR_NOT_FOUND when there is none. */
int group_open(const char *name, struct group **ret, struct err *e);
/*
 * Maps the segment at a path that belongs to no state folder, such as a guest's window on its
 * host's memory. Everything in it must be backed by storage already.
 */
int group_open_at(const char *path, struct group **ret, struct err *e);
/* Opens it, made with default options when it does not exist. */
int group_open_or_create(const char *name, struct group **ret, struct err *e);
/* Unmaps; the members' mappings are their own. NULL is fine. Returns NULL. */
struct group *group_close(struct group *g);
DEFINE_CLEANUP(struct group *, group_close);
/* Removes a group that nobody is a member of any more, or (force) any. */
int group_remove(const char *name, bool force, struct err *e);
/* Calls visit() for each group's name, sorted; NULL-terminated list that the caller frees whole. */
int group_names(char ***ret, struct err *e);
void group_names_free(char **names);

/* A new member for a program run by this process; its name valid, or NULL: "m" and its number. */
int group_join(struct group *g, const char *member, const char *program, uint32_t run,
	enum member_place place, struct member **ret, struct err *e);
/* RUN_VARIABLE's value for the first program of a member: malloc'ed. */
int group_run_value(const struct group *g, const struct member *m, char **ret, struct err *e);
/* Whether a process of the member is still there. */
bool member_alive(const struct segment *s, const struct member *m);

#endif
