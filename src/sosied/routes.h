/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every route of the API, once: what is dispatched, authorised, checked and published as OpenAPI
 * comes from this table.
 */
#ifndef SOSIE_SOSIED_ROUTES_H
#define SOSIE_SOSIED_ROUTES_H

#include "sosied/access.h"
#include "sosied/call.h"

#define ROUTE_READS   0x00
#define ROUTE_WRITES  0x01 /* in a writing transaction, audited */
#define ROUTE_QUIET   0x02 /* a machine's report: not audited */
#define ROUTE_PAGED   0x04 /* takes limit and after */
#define ROUTE_TENANT  0x08 /* the provider may say ?tenant= */
#define ROUTE_UPLOAD  0x10 /* the body is a file */
#define ROUTE_STREAM  0x20 /* answers with Server-Sent Events */
#define ROUTE_NO_BODY 0x40 /* a body may be left out */
#define ROUTE_LIST    (ROUTE_PAGED | ROUTE_TENANT)
#define ROUTE_OWNED   ROUTE_TENANT
#define ROUTE_CHANGES (ROUTE_WRITES | ROUTE_TENANT)

/* clang-format off */
/* name; method; path; access; schema; status; flags; summary; what is answered */
#define ROUTE_TABLE(X) \
	X(openapi, GET, "/v1/openapi.json", ACCESS_ANYONE, NULL, 200, ROUTE_READS, \
		"This interface as an OpenAPI document", "an OpenAPI 3.1 document") \
	X(whoami, GET, "/v1/whoami", ACCESS_ANYONE, NULL, 200, ROUTE_READS, \
		"Whose the token is", "its tenant, role and host") \
	X(status, GET, "/v1/status", ACCESS_VIEWER, NULL, 200, ROUTE_TENANT, \
		"How many of what there are, in which state", "counts") \
	X(capacity, GET, "/v1/capacity", ACCESS_PROVIDER_VIEWER, NULL, 200, ROUTE_READS, \
		"What hosts have, what is reserved and what is free", "totals and each host") \
	X(events, GET, "/v1/events", ACCESS_VIEWER, NULL, 200, ROUTE_TENANT | ROUTE_STREAM, \
		"What happens, from where Last-Event-ID or 'since' says; as a page with 'poll'", \
		"Server-Sent Events whose ids are revisions") \
	X(audit, GET, "/v1/audit", ACCESS_ADMIN, NULL, 200, ROUTE_TENANT, \
		"Who asked for which change", "entries behind 'since', oldest first") \
	\
	X(tenants_list, GET, "/v1/tenants", ACCESS_VIEWER, NULL, 200, ROUTE_PAGED, \
		"List tenants: the token's own, or for the provider all", "tenants") \
	X(tenants_create, POST, "/v1/tenants", ACCESS_PROVIDER_ADMIN, schema_tenant, 201, \
		ROUTE_WRITES, "Make a tenant, with a network of its own", "the tenant") \
	X(tenants_show, GET, "/v1/tenants/{tenant}", ACCESS_VIEWER, NULL, 200, ROUTE_READS, \
		"Show a tenant", "the tenant") \
	X(tenants_delete, DELETE, "/v1/tenants/{tenant}", ACCESS_PROVIDER_ADMIN, NULL, 204, \
		ROUTE_WRITES, "Delete a tenant that has nothing left", "nothing") \
	\
	X(tokens_list, GET, "/v1/tokens", ACCESS_ADMIN, NULL, 200, ROUTE_LIST, \
		"List tokens, without their secrets", "tokens") \
	X(tokens_create, POST, "/v1/tokens", ACCESS_ADMIN, schema_token, 201, ROUTE_CHANGES, \
		"Make a token", "the token with its secret, which is never told again") \
	X(tokens_delete, DELETE, "/v1/tokens/{token}", ACCESS_ADMIN, NULL, 204, ROUTE_CHANGES, \
		"Revoke a token", "nothing") \
	X(join_tokens_create, POST, "/v1/join-tokens", ACCESS_PROVIDER_ADMIN, schema_join, 201, \
		ROUTE_WRITES | ROUTE_NO_BODY, "Make a token by which hosts join", \
		"the token with its secret") \
	\
	X(hosts_list, GET, "/v1/hosts", ACCESS_PROVIDER_VIEWER, NULL, 200, ROUTE_PAGED, \
		"List hosts", "hosts") \
	X(hosts_show, GET, "/v1/hosts/{host}", ACCESS_PROVIDER_VIEWER, NULL, 200, ROUTE_READS, \
		"Show a host", "the host") \
	X(hosts_drain, POST, "/v1/hosts/{host}/drain", ACCESS_PROVIDER_ADMIN, NULL, 200, \
		ROUTE_WRITES, "Place nothing more on a host", "the host") \
	X(hosts_undrain, POST, "/v1/hosts/{host}/undrain", ACCESS_PROVIDER_ADMIN, NULL, 200, \
		ROUTE_WRITES, "Let a host take instances again", "the host") \
	X(hosts_fence, POST, "/v1/hosts/{host}/fence", ACCESS_PROVIDER_ADMIN, NULL, 200, \
		ROUTE_WRITES, "Declare that a lost host is off for good: its instances are " \
		"started elsewhere from their images", "what became of its instances") \
	X(hosts_delete, DELETE, "/v1/hosts/{host}", ACCESS_PROVIDER_ADMIN, NULL, 204, \
		ROUTE_WRITES, "Forget a host that has nothing on it", "nothing") \
	\
	X(images_list, GET, "/v1/images", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List the tenant's images and public ones", "images") \
	X(images_create, POST, "/v1/images", ACCESS_PROVIDER_ADMIN, schema_image, 202, \
		ROUTE_CHANGES, "Register an image file of the control plane's machine", \
		"the image, ready once its digest is known") \
	X(images_upload, PUT, "/v1/images/{image}/file", ACCESS_OPERATOR, NULL, 201, \
		ROUTE_CHANGES | ROUTE_UPLOAD, \
		"Upload an image; the query says format (raw, qcow2), version and public", \
		"the image") \
	X(images_show, GET, "/v1/images/{image}", ACCESS_VIEWER, NULL, 200, ROUTE_OWNED, \
		"Show an image", "the image") \
	X(images_delete, DELETE, "/v1/images/{image}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "Delete an image that nothing is made of", "nothing") \
	\
	X(networks_list, GET, "/v1/networks", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List networks", "networks") \
	X(networks_create, POST, "/v1/networks", ACCESS_OPERATOR, schema_network, 201, \
		ROUTE_CHANGES, "Make a network", "the network") \
	X(networks_show, GET, "/v1/networks/{network}", ACCESS_VIEWER, NULL, 200, ROUTE_OWNED, \
		"Show a network", "the network") \
	X(networks_delete, DELETE, "/v1/networks/{network}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "Delete a network that no instance is in", "nothing") \
	X(rules_list, GET, "/v1/networks/{network}/rules", ACCESS_VIEWER, NULL, 200, \
		ROUTE_LIST, "List a network's security rules; what none allows is refused " \
		"inwards, and outwards everything is allowed", "rules") \
	X(rules_create, POST, "/v1/networks/{network}/rules", ACCESS_OPERATOR, schema_rule, 201, \
		ROUTE_CHANGES, "Add a security rule", "the rule") \
	X(rules_delete, DELETE, "/v1/networks/{network}/rules/{rule}", ACCESS_OPERATOR, NULL, \
		204, ROUTE_CHANGES, "Remove a security rule", "nothing") \
	X(published_list, GET, "/v1/published-ports", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List ports published on hosts", "published ports") \
	X(published_create, POST, "/v1/published-ports", ACCESS_OPERATOR, schema_published, 201, \
		ROUTE_CHANGES, "Publish an instance's port on its host", "the published port") \
	X(published_delete, DELETE, "/v1/published-ports/{port}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "Withdraw a published port", "nothing") \
	\
	X(instances_list, GET, "/v1/instances", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List instances", "instances") \
	X(instances_create, POST, "/v1/instances", ACCESS_OPERATOR, schema_launch, 201, \
		ROUTE_CHANGES, "Launch instances, by choice as a group", "the instances") \
	X(instances_show, GET, "/v1/instances/{instance}", ACCESS_VIEWER, NULL, 200, \
		ROUTE_OWNED, "Show an instance", "the instance") \
	X(instances_start, POST, "/v1/instances/{instance}/start", ACCESS_OPERATOR, NULL, 202, \
		ROUTE_CHANGES, "Start a stopped instance", "the instance") \
	X(instances_stop, POST, "/v1/instances/{instance}/stop", ACCESS_OPERATOR, NULL, 202, \
		ROUTE_CHANGES, "Stop an instance; its disk stays", "the instance") \
	X(instances_reboot, POST, "/v1/instances/{instance}/reboot", ACCESS_OPERATOR, NULL, 202, \
		ROUTE_CHANGES, "Reboot an instance", "the instance") \
	X(instances_delete, DELETE, "/v1/instances/{instance}", ACCESS_OPERATOR, NULL, 202, \
		ROUTE_CHANGES, "Terminate an instance: it and its disk go", "the instance") \
	\
	X(sessions_create, POST, "/v1/instances/{instance}/sessions", ACCESS_OPERATOR, \
		schema_session, 201, ROUTE_CHANGES, "Run a program in an instance, or open its console", \
		"the session") \
	X(sessions_list, GET, "/v1/sessions", ACCESS_OPERATOR, NULL, 200, ROUTE_TENANT, \
		"List sessions", "sessions") \
	X(sessions_output, GET, "/v1/sessions/{session}/output", ACCESS_OPERATOR, NULL, 200, \
		ROUTE_TENANT | ROUTE_STREAM, "A session's output, from behind Last-Event-ID", \
		"events stdout and stderr with data in base64, and exit, which is the last") \
	X(sessions_input, POST, "/v1/sessions/{session}/input", ACCESS_OPERATOR, schema_input, \
		200, ROUTE_TENANT, "Write to a session's input", "how much it has taken") \
	X(sessions_delete, DELETE, "/v1/sessions/{session}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "End a session", "nothing") \
	\
	X(volumes_list, GET, "/v1/volumes", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List volumes", "volumes") \
	X(volumes_create, POST, "/v1/volumes", ACCESS_OPERATOR, schema_volume, 201, \
		ROUTE_CHANGES, "Make a local volume: room for it is reserved on a host", \
		"the volume") \
	X(volumes_show, GET, "/v1/volumes/{volume}", ACCESS_VIEWER, NULL, 200, ROUTE_OWNED, \
		"Show a volume", "the volume") \
	X(volumes_attach, POST, "/v1/volumes/{volume}/attach", ACCESS_OPERATOR, schema_attach, \
		200, ROUTE_CHANGES, "Note to which instance a volume belongs", "the volume") \
	X(volumes_detach, POST, "/v1/volumes/{volume}/detach", ACCESS_OPERATOR, NULL, 200, \
		ROUTE_CHANGES, "Note that a volume belongs to no instance", "the volume") \
	X(volumes_delete, DELETE, "/v1/volumes/{volume}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "Delete a volume that is not attached", "nothing") \
	\
	X(groups_list, GET, "/v1/groups", ACCESS_VIEWER, NULL, 200, ROUTE_LIST, \
		"List groups", "groups") \
	X(groups_show, GET, "/v1/groups/{group}", ACCESS_VIEWER, NULL, 200, ROUTE_OWNED, \
		"Show a group: members, hosts, source and primary", "the group") \
	X(groups_delete, DELETE, "/v1/groups/{group}", ACCESS_OPERATOR, NULL, 204, \
		ROUTE_CHANGES, "Delete a group without members", "nothing") \
	\
	X(agent_register, POST, "/v1/agent/register", ACCESS_JOIN, schema_register, 200, \
		ROUTE_WRITES, "A host joins", "its id and token") \
	X(agent_desired, GET, "/v1/agent/desired", ACCESS_AGENT, NULL, 200, ROUTE_READS, \
		"What the host should be, as soon as its revision is not 'revision'; 304 when " \
		"that does not happen within 'wait' seconds", "the desired state") \
	X(agent_observed, POST, "/v1/agent/observed", ACCESS_AGENT, schema_observed, 200, \
		ROUTE_WRITES | ROUTE_QUIET, "What the host is: the heartbeat", \
		"the host's desired revision") \
	X(agent_events, POST, "/v1/agent/events", ACCESS_AGENT, schema_agent_events, 200, \
		ROUTE_WRITES | ROUTE_QUIET, "What happened on the host", \
		"the last sequence that is taken down") \
	X(agent_image, GET, "/v1/agent/images/{image}", ACCESS_AGENT, NULL, 200, ROUTE_READS, \
		"The file of an image that the host needs, by id or name", "the file") \
	X(agent_session_input, GET, "/v1/agent/sessions/{session}/input", ACCESS_AGENT, NULL, \
		200, ROUTE_READS, "A session's input from 'offset', which acknowledges what is " \
		"before; 304 when there is none within 'wait' seconds", "the input") \
	X(agent_session_output, POST, "/v1/agent/sessions/{session}/output", ACCESS_AGENT, \
		schema_output, 200, ROUTE_READS, "The next piece of a session's output", \
		"the last sequence that is taken")
/* clang-format on */

enum route_id {
#define X(name, method, path, access, schema, status, flags, summary, answer) ROUTE_ID_##name,
	ROUTE_TABLE(X)
#undef X
		ROUTES
};

struct route {
	const char *name;
	const char *path;
	enum http_method method;
	enum access access;
	handler_fn handler;
	const struct json_field *schema; /* of the body; NULL: it takes none */
	unsigned int status;
	unsigned int flags;
	const char *summary;
	const char *answer;
};

extern const struct route routes[ROUTES];

#define X(name, method, path, access, schema, status, flags, summary, answer) \
	int route_##name(struct call *c, json_t **ret, struct err *e);
ROUTE_TABLE(X)
#undef X

extern const struct json_field schema_tenant[], schema_token[], schema_join[], schema_image[],
	schema_network[], schema_rule[], schema_published[], schema_launch[], schema_session[],
	schema_input[], schema_volume[], schema_attach[], schema_register[], schema_observed[],
	schema_agent_events[], schema_output[];

/*
 * The route of method and path, or NULL. Its {…} are copied to params. *ret_elsewhere: the path
 * exists with another method.
 */
const struct route *route_find(enum http_method method, const char *path,
	char params[PARAMS_MAX][PARAM_SIZE], bool *ret_elsewhere);

/* openapi.c: the whole document; NULL when out of memory. */
json_t *openapi_document(void);

#endif
