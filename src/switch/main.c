/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "switch/control.h"
#include "switch/sandbox.h"

static const char usage[] =
	"usage: sosie-switch [--user USER] FOLDER\n"
	"\n"
	"The switch of one tenant network on one host. FOLDER (STATE/networks/NETWORK) holds its\n"
	"control socket switch.sock and its configuration config.json, with which it goes on when\n"
	"it is started again. Ends with status 0 on SIGTERM.\n"
	"\n"
	"  --user USER  started as root: become this user, who must be able to write to FOLDER\n"
	"  --help       this text\n"
	"  --version    the version\n"
	"\n"
	"environment:\n"
	"  SOSIE_LOG    debug, info, warning or error; default info\n"
	"\n"
	"example:\n"
	"  sosie-switch --user sosie /var/lib/sosie/networks/n-1\n";

static int run(const char *user, const char *folder, struct err *e)
{
	CLEANUP_EVENT sd_event *event = NULL;
	CLEANUP(network_free_p) struct network *network = NULL;
	CLEANUP(control_free_p) struct control *control = NULL;
	int r = sandbox_begin(e);

	if (r == 0)
		r = sandbox_user(user, e);
	if (r < 0)
		return r;
	/* Relative names from here on, so that the folder's length does not matter to sockets. */
	if (chdir(folder) < 0)
		return err_errno(e, -errno, "%s", folder);
	r = loop_new(&event);
	if (r == 0)
		r = network_new(event, &network);
	if (r < 0)
		return err_errno(e, r, "start");
	r = control_new(event, network, &control, e);
	if (r == 0)
		r = sandbox_end(e);
	if (r < 0)
		return r;
	/* A damaged copy must not keep the agent from sending a good one. */
	if (control_load(control, e) < 0)
		log_control(LOG_ERROR, "kept configuration not usable", " error=%s",
			log_quote(e->message));
	log_control(LOG_INFO, "started", " folder=%s", log_quote(folder));
	r = loop_run(event);
	log_control(LOG_INFO, "stopped", NULL);
	return r < 0 ? err_errno(e, r, "event loop") : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"user", required_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	const char *user = NULL;
	struct err e = {0};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'u':
			user = optarg;
			break;
		case 'h':
			return fputs(usage, stdout) < 0;
		case 'v':
			return puts("sosie-switch " SOSIE_VERSION) < 0;
		default:
			(void)fputs(usage, stderr);
			return err_exit_status(ERR_USAGE);
		}
	}
	if (optind != argc - 1) {
		(void)fputs(usage, stderr);
		return err_exit_status(ERR_USAGE);
	}
	log_init("switch");
	if (run(user, argv[optind], &e) < 0) {
		log_control(LOG_ERROR, e.message, NULL);
		return err_exit_status(e.code);
	}
	return 0;
}
