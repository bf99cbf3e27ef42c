/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small files, whole.
 */
#ifndef SOSIE_IO_FILE_H
#define SOSIE_IO_FILE_H

#include "base/buf.h"
#include "base/macro.h"

/*
 * Appends what the file holds to the buffer, whose maximum bounds it. The name is relative to the
 * open directory (AT_FDCWD: the current one), and no symbolic link. -E2BIG when it is larger.
 */
int file_read_at(int directory, const char *name, struct buf *out);

#endif
