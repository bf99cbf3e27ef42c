/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of the command table whose commands talk to the control plane; included by main.c.
 */
#ifndef SOSIE_CLI_API_TABLE_H
#define SOSIE_CLI_API_TABLE_H

#include "cli/command.h"

#define HOST_NAMES     "sosie host list --names"
#define IMAGE_NAMES    "sosie image list --names"
#define INSTANCE_NAMES "sosie instance list --names"
#define NETWORK_NAMES  "sosie network list --names"
#define TENANT_NAMES   "sosie tenant list --names"
#define VOLUME_NAMES   "sosie volume list --names"

#define API_JSON                                    \
	{                                           \
		"json", 0, NULL, "print JSON", NULL \
	}
#define API_TENANT                                                                        \
	{                                                                                 \
		"tenant", 0, "TENANT", "this tenant's, when the token is the provider's", \
			TENANT_NAMES                                                      \
	}
#define API_WAIT                                                                                 \
	{"wait", 0, NULL, "wait until it has happened (default)", NULL},                         \
		{"no-wait", 0, NULL, "return once the control plane has taken it down", NULL},   \
	{                                                                                        \
		"timeout", 0, "TIME", "wait no longer than this, such as 90s (default 5m)", NULL \
	}
#define API_END                           \
	{                                 \
		NULL, 0, NULL, NULL, NULL \
	}

static const struct option_spec api_list_options[] = {
	{"names", 0, NULL, "print names only", NULL}, API_TENANT, API_JSON, API_END};
static const struct option_spec api_item_options[] = {API_TENANT, API_JSON, API_END};
static const struct option_spec api_act_options[] = {API_TENANT, API_WAIT, API_JSON, API_END};

static const struct option_spec up_options[] = {
	{"hosts", 'n', "N", "how many hosts (default 1)", NULL},
	{"detach", 'd', NULL, "return when all is up, and leave it running", NULL},
	{"listen", 0, "ADDRESS:PORT", "of the control plane (default 127.0.0.1, a free port)",
		NULL},
	{"accel", 0, "auto|tcg|kvm", "how guests run", "echo auto tcg kvm"},
	API_JSON,
	API_END,
};
static const struct option_spec down_options[] = {
	{"keep-guests", 0, NULL, "end agents and control plane only", NULL},
	API_JSON,
	API_END,
};
static const struct option_spec import_options[] = {
	{"name", 'n', "NAME", "the image's name (default: the file's)", NULL},
	{"version", 0, "VERSION", "default 1", NULL},
	{"public", 0, NULL, "for every tenant to see", NULL},
	API_TENANT,
	API_JSON,
	API_END,
};
static const struct option_spec launch_options[] = {
	{"image", 'i', "IMAGE", "NAME or NAME:VERSION", IMAGE_NAMES},
	{"count", 'c', "N", "how many (default 1)", NULL},
	{"group", 'g', "GROUP", "the high-availability group that they are to form or join", NULL},
	{"spread", 0, "HOW", "over hosts, zones, or same-host; any (default: a group over hosts)",
		"echo hosts zones same-host any"},
	{"cores", 0, "N", "default 1", NULL},
	{"memory", 'm', "SIZE", "default 512M", NULL},
	{"disk", 0, "SIZE", "default the image's", NULL},
	{"network", 0, "NETWORK", "default 'default'", NETWORK_NAMES},
	{"user-data", 0, "FILE", "for cloud-init and the like", NULL},
	{"publish", 'p', "PORTS", "on its host: 80 or 8080:80 or 53/udp, separated by commas",
		NULL},
	API_TENANT,
	API_WAIT,
	API_JSON,
	API_END,
};
static const struct option_spec volume_options[] = {
	{"size", 's', "SIZE", "such as 10G", NULL},
	{"instance", 'i', "INSTANCE", "make it on this instance's host", INSTANCE_NAMES},
	API_TENANT,
	API_JSON,
	API_END,
};
static const struct option_spec allow_options[] = {
	{"protocol", 0, "PROTOCOL", "tcp (default), udp, icmp or any", "echo tcp udp icmp any"},
	{"port", 'p', "PORT", "80, or 8000-8080 (default all)", NULL},
	{"from", 0, "CIDR", "such as 192.0.2.0/24 (default everybody)", NULL},
	API_TENANT,
	API_JSON,
	API_END,
};
static const struct option_spec token_options[] = {
	{"role", 'r', "ROLE", "viewer, operator (default), admin, or join: for hosts",
		"echo viewer operator admin join"},
	{"provider", 0, NULL, "for all tenants and the hosts", NULL},
	{"expires", 0, "TIME", "such as 12h (default never; join: 1h)", NULL},
	{"comment", 0, "TEXT", "what it is for", NULL},
	API_TENANT,
	API_JSON,
	API_END,
};
static const struct option_spec event_options[] = {
	{"follow", 'f', NULL, "go on with what happens from now on", NULL},
	{"since", 0, "REVISION", "only what came behind this one", NULL},
	API_JSON,
	API_END,
};

/* clang-format off */
#define LIST_ROW(word, what) \
	{word " list", "list " what, NULL, 0, 0, false, api_list_options, NULL, \
		"  sosie " word " list\n  sosie " word " list --json", NULL, run_resource_list}
#define SHOW_ROW(word, name, names) \
	{word " show", "everything about one " word, name, 1, 1, false, api_item_options, NULL, \
		"  sosie " word " show NAME --json", names, run_resource_show}
#define DELETE_ROW(word, name, names) \
	{word " delete", "delete one or more", name " ...", 1, -1, false, api_item_options, NULL, \
		"  sosie " word " delete NAME", names, run_resource_delete}
#define HOST_ROW(verb, what) \
	{"host " verb, what, "HOST ...", 1, -1, false, api_item_options, NULL, \
		"  sosie host " verb " host-1", HOST_NAMES, run_resource_act}
#define INSTANCE_ROW(verb, what) \
	{"instance " verb, what, "INSTANCE ...", 1, -1, false, api_act_options, NULL, \
		"  sosie instance " verb " web-1\n  sosie instance " verb " web-1 --no-wait", \
		INSTANCE_NAMES, run_instance_act}

#define API_COMMANDS \
	{"up", "start a control plane and hosts on this machine", NULL, 0, 0, false, up_options, \
		"Everything is kept in the state folder ($SOSIE_STATE_DIR, or sosie in the user's\n" \
		"state folder), and the next 'sosie up' finds it again. Without --detach it ends\n" \
		"when it is interrupted.", \
		"  sosie up --hosts 2 --detach", NULL, run_up}, \
	{"down", "end what 'sosie up' has started", NULL, 0, 0, false, down_options, \
		"Guests end too, and are started again by the next 'sosie up'.", \
		"  sosie down\n  sosie down --keep-guests", NULL, run_down}, \
	{"status", "the control plane, and how many of what there are", NULL, 0, 0, false, \
		api_item_options, NULL, "  sosie status", NULL, run_status}, \
	{"events", "what has happened", NULL, 0, 0, false, event_options, NULL, \
		"  sosie events --follow\n  sosie events --json | jq .kind", NULL, run_events}, \
	LIST_ROW("host", "hosts"), \
	SHOW_ROW("host", "HOST", HOST_NAMES), \
	HOST_ROW("drain", "place nothing more on a host"), \
	HOST_ROW("undrain", "let a host take instances again"), \
	HOST_ROW("fence", "declare that a lost host is off for good; what it ran starts elsewhere"), \
	DELETE_ROW("host", "HOST", HOST_NAMES), \
	LIST_ROW("image", "images"), \
	SHOW_ROW("image", "IMAGE", IMAGE_NAMES), \
	{"image import", "upload a qcow2 or raw image", "FILE", 1, 1, false, import_options, NULL, \
		"  sosie image import debian-12-generic-amd64.qcow2 --name debian", NULL, \
		run_image_import}, \
	{"image build", "build an image by a recipe and import it", "RECIPE [ARGUMENT ...]", 1, -1, \
		true, import_options, \
		"Arguments behind the recipe are the builder's: --package P, --size SIZE …", \
		"  sosie image build mini\n" \
		"  sosie image build --name redis debian --package redis-server", \
		"echo mini debian", run_image_build}, \
	DELETE_ROW("image", "IMAGE", IMAGE_NAMES), \
	{"launch", "launch instances, by choice as a group", "[NAME]", 0, 1, false, launch_options, \
		"Without a name they are called after their group.", \
		"  sosie launch web --image mini --publish 8080:80\n" \
		"  sosie launch --image debian --count 2 --group web --memory 1G", NULL, run_launch}, \
	{"exec", "run a program in an instance", "INSTANCE -- PROGRAM [ARGUMENT ...]", 2, -1, true, \
		api_item_options, \
		"In a group's instance the program is a member of the group. The exit status is\n" \
		"the program's; 125 when it could not be run.", \
		"  sosie exec web-1 -- uuidgen\n  tar c . | sosie exec web-1 -- tar x -C /srv", \
		INSTANCE_NAMES, run_exec}, \
	LIST_ROW("instance", "instances"), \
	SHOW_ROW("instance", "INSTANCE", INSTANCE_NAMES), \
	{"instance console", "attach to an instance's serial console", "INSTANCE", 1, 1, false, \
		api_item_options, "Control and ] leaves it.", "  sosie instance console web-1", \
		INSTANCE_NAMES, run_instance_console}, \
	{"instance exec", "the same as 'sosie exec'", "INSTANCE -- PROGRAM [ARGUMENT ...]", 2, -1, \
		true, api_item_options, NULL, "  sosie instance exec web-1 -- uuidgen", \
		INSTANCE_NAMES, run_exec}, \
	INSTANCE_ROW("reboot", "reboot instances"), \
	INSTANCE_ROW("stop", "stop instances; their disks stay"), \
	INSTANCE_ROW("start", "start stopped or failed instances"), \
	INSTANCE_ROW("terminate", "end instances; their disks go"), \
	LIST_ROW("volume", "volumes"), \
	SHOW_ROW("volume", "VOLUME", VOLUME_NAMES), \
	{"volume create", "reserve room for a local volume on a host", "VOLUME", 1, 1, false, \
		volume_options, \
		"Hosts are not told of volumes yet: no guest has one as a disk.", \
		"  sosie volume create data --size 10G --instance web-1", NULL, run_volume_create}, \
	{"volume attach", "note to which instance a volume belongs", "VOLUME INSTANCE", 2, 2, false, \
		api_item_options, NULL, "  sosie volume attach data web-1", VOLUME_NAMES, \
		run_volume_attach}, \
	{"volume detach", "note that it belongs to none", "VOLUME ...", 1, -1, false, \
		api_item_options, NULL, "  sosie volume detach data", VOLUME_NAMES, run_resource_act}, \
	DELETE_ROW("volume", "VOLUME", VOLUME_NAMES), \
	LIST_ROW("network", "networks"), \
	SHOW_ROW("network", "NETWORK", NETWORK_NAMES), \
	{"network create", "make a network", "NETWORK CIDR", 2, 2, false, api_item_options, NULL, \
		"  sosie network create lab 10.20.0.0/24", NULL, run_network_create}, \
	{"network rules", "what a network lets in", "NETWORK", 1, 1, false, api_item_options, NULL, \
		"  sosie network rules default", NETWORK_NAMES, run_network_rules}, \
	{"network allow", "let something in", "NETWORK", 1, 1, false, allow_options, NULL, \
		"  sosie network allow default --port 80 --from 192.0.2.0/24", NETWORK_NAMES, \
		run_network_allow}, \
	{"network deny", "remove a rule", "NETWORK RULE", 2, 2, false, api_item_options, NULL, \
		"  sosie network deny default r-…", NETWORK_NAMES, run_network_deny}, \
	{"network publish", "publish an instance's port on its host", "INSTANCE PORT", 2, 2, false, \
		api_item_options, NULL, "  sosie network publish web-1 8080:80", INSTANCE_NAMES, \
		run_network_publish}, \
	DELETE_ROW("network", "NETWORK", NETWORK_NAMES), \
	LIST_ROW("published", "published ports"), \
	DELETE_ROW("published", "PORT", NULL), \
	LIST_ROW("tenant", "tenants"), \
	{"tenant create", "make a tenant", "TENANT", 1, 1, false, api_item_options, NULL, \
		"  sosie tenant create acme", NULL, run_tenant_create}, \
	DELETE_ROW("tenant", "TENANT", TENANT_NAMES), \
	LIST_ROW("token", "tokens, without their secrets"), \
	{"token create", "make a token, and print its secret once", NULL, 0, 0, false, \
		token_options, NULL, \
		"  sosie token create --role viewer --tenant acme --expires 12h\n" \
		"  sosie token create --role join > join-token", NULL, run_token_create}, \
	DELETE_ROW("token", "TOKEN", NULL)
/* clang-format on */

#endif
