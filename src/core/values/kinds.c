/* SPDX-License-Identifier: Apache-2.0 */
#include "core/values/kinds.h"

#include <string.h>

static const struct {
	const char *name;
	enum value_form form;
} kinds[] = {
#define X(constant, number, name, form) [constant] = {name, form},
	KIND_TABLE(X)
#undef X
};
static_assert(ARRAY_SIZE(kinds) == KINDS, "one row per kind");

const char *kind_name(unsigned int kind)
{
	return kind < KINDS ? kinds[kind].name : "?";
}

enum value_form kind_form(unsigned int kind)
{
	return kind < KINDS ? kinds[kind].form : FORM_WORD;
}

int kind_from_name(const char *name)
{
	for (unsigned int i = 0; i < KINDS; i++)
		if (!strcmp(kinds[i].name, name))
			return (int)i;
	return -1;
}
