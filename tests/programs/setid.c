/* SPDX-License-Identifier: Apache-2.0 */
/* Prints who it runs as and whether the preload library is in it: installed set-user-ID by a test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
	const char *list = getenv("LD_PRELOAD");
	char line[512];
	int mapped = 0;
	FILE *f = fopen("/proc/self/maps", "r");

	while (f && fgets(line, sizeof(line), f))
		mapped |= strstr(line, "libsosie-preload") != NULL;
	if (f)
		(void)fclose(f);
	(void)printf("uid=%d euid=%d preload=%s run=%s mapped=%d\n", (int)getuid(), (int)geteuid(),
		list ? list : "-", getenv("SOSIE_RUN") ? "set" : "-", mapped);
	return 0;
}
