/* SPDX-License-Identifier: Apache-2.0 */
#include "base/zalloc.h"

void *zalloc(size_t n, size_t size)
{
	return calloc(n, size);
}
