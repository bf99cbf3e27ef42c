/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOSIE_BASE_ZALLOC_H
#define SOSIE_BASE_ZALLOC_H

#include "base/macro.h"

/*
 * calloc(3), out of the sight of static analysers: those do not know the cleanup attribute, and
 * take whatever a CLEANUP_FREE variable holds at its scope's end for a leak. Real leaks are
 * LeakSanitizer's to find. NULL when out of memory; to be freed with free(3).
 */
void *zalloc(size_t n, size_t size);

#endif
