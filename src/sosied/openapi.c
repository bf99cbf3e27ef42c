/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The route table as an OpenAPI 3.1 document.
 */
#include <stdio.h>
#include <string.h>

#include "sosied/routes.h"

#define OPENAPI_VERSION "3.1.0"

struct parameter {
	unsigned int flag; /* 0: of the route named instead */
	const char *route;
	const char *name;
	const char *in;
	const char *type;
	const char *description;
};

static const struct parameter parameters[] = {
	{ROUTE_PAGED, NULL, "limit", "query", "integer", "items on a page"},
	{ROUTE_PAGED, NULL, "after", "query", "string", "what the page before named as 'next'"},
	{ROUTE_TENANT, NULL, "tenant", "query", "string",
		"for the provider: which tenant's things [all, and for names and new things "
		"'default']"},
	{ROUTE_STREAM, NULL, "Last-Event-ID", "header", "string", "the last event that is known"},
	{0, "events", "since", "query", "integer", "the same as a revision"},
	{0, "events", "poll", "query", "boolean", "answer a page of JSON and end"},
	{0, "audit", "since", "query", "integer", "the revision of the last entry known"},
	{0, "instances_list", "group", "query", "string", "only this group's"},
	{0, "images_upload", "format", "query", "string", "raw or qcow2 [by its first bytes]"},
	{0, "images_upload", "version", "query", "string", "[1]"},
	{0, "images_upload", "public", "query", "boolean",
		"for every tenant to see; the provider's to say"},
	{0, "agent_desired", "revision", "query", "integer", "what is known already"},
	{0, "agent_desired", "wait", "query", "integer", "seconds, at most 30"},
	{0, "agent_session_input", "offset", "query", "integer", "bytes taken so far"},
	{0, "agent_session_input", "wait", "query", "integer", "seconds, at most 30"},
};

static void add_path_parameters(json_t *list, const char *path)
{
	for (const char *at = path; (at = strchr(at, '{')) != NULL; at++) {
		size_t n = strcspn(at, "}") - 1;

		(void)json_array_append_new(
			list, json_pack("{s:s%,s:s,s:b,s:{s:s}}", "name", at + 1, n, "in", "path",
				      "required", 1, "schema", "type", "string"));
	}
}

static json_t *parameter_list(const struct route *r)
{
	json_t *list = json_array();

	add_path_parameters(list, r->path);
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		const struct parameter *p = &parameters[i];

		if (p->flag ? !(r->flags & p->flag) : strcmp(p->route, r->name) != 0)
			continue;
		(void)json_array_append_new(
			list, json_pack("{s:s,s:s,s:s,s:{s:s}}", "name", p->name, "in", p->in,
				      "description", p->description, "schema", "type", p->type));
	}
	return list;
}

static json_t *request_body(const struct route *r)
{
	if (r->flags & ROUTE_UPLOAD)
		return json_pack(
			"{s:b,s:{s:{}}}", "required", 1, "content", "application/octet-stream");
	if (!r->schema)
		return NULL;
	return json_pack("{s:b,s:{s:{s:o}}}", "required", !(r->flags & ROUTE_NO_BODY), "content",
		"application/json", "schema", json_schema(r->schema));
}

static json_t *responses(const struct route *r)
{
	char status[16];
	json_t *good = json_pack("{s:s}", "description", r->answer);

	if (r->flags & ROUTE_STREAM)
		(void)json_object_set_new(
			good, "content", json_pack("{s:{}}", "text/event-stream"));
	else if (r->status != 204)
		(void)json_object_set_new(good, "content", json_pack("{s:{}}", "application/json"));
	(void)snprintf(status, sizeof(status), "%u", r->status);
	return json_pack(
		"{s:o,s:{s:s}}", status, good, "default", "$ref", "#/components/responses/Error");
}

static json_t *operation(const struct route *r)
{
	json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:o,s:o}", "operationId", r->name, "summary",
		r->summary, "x-access", access_name(r->access), "description",
		access_meaning(r->access), "parameters", parameter_list(r), "responses",
		responses(r));
	json_t *body = request_body(r);

	if (body)
		(void)json_object_set_new(o, "requestBody", body);
	return o;
}

static json_t *error_response(void)
{
	return json_pack("{s:s,s:{s:{s:{s:s,s:{s:{s:s,s:{s:{s:s},s:{s:s},s:{s:s}},s:[s,s]}}}}}}",
		"description", "why not", "content", "application/json", "schema", "type", "object",
		"properties", "error", "type", "object", "properties", "code", "type", "string",
		"message", "type", "string", "hint", "type", "string", "required", "code",
		"message");
}

json_t *openapi_document(void)
{
	json_t *paths = json_object();
	char method[16];

	for (size_t i = 0; i < ROUTES; i++) {
		json_t *path = json_object_get(paths, routes[i].path);

		if (!path) {
			path = json_object();
			(void)json_object_set_new(paths, routes[i].path, path);
		}
		(void)snprintf(method, sizeof(method), "%s", http_method_name(routes[i].method));
		for (char *m = method; *m; m++)
			*m = (char)(*m | 0x20);
		(void)json_object_set_new(path, method, operation(&routes[i]));
	}
	return json_pack("{s:s,s:{s:s,s:s},s:o,s:{s:{s:o},s:{s:{s:s,s:s}}},s:[{s:[]}]}", "openapi",
		OPENAPI_VERSION, "info", "title", "Sosie", "version", SOSIE_VERSION, "paths", paths,
		"components", "responses", "Error", error_response(), "securitySchemes", "token",
		"type", "http", "scheme", "bearer", "security", "token");
}

int route_openapi(struct call *c, json_t **ret, struct err *e)
{
	(void)c;
	(void)e;
	*ret = openapi_document();
	return 0;
}
