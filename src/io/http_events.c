/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-Sent Events as the HTML standard parses them: lines end with LF, CR or CR LF, of which
 * any piece may come by itself; an empty line ends an event; one without data is not told.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "io/http_client.h"

void http_events_init(struct http_events *p, http_event_fn callback, void *userdata)
{
	*p = (struct http_events){
		.line = BUF_INIT(HTTP_EVENT_LINE_MAX),
		.data = BUF_INIT(HTTP_EVENT_MAX),
		.callback = callback,
		.userdata = userdata,
	};
}

void http_events_free(struct http_events *p)
{
	buf_free(&p->line);
	buf_free(&p->data);
}

static int end_event(struct http_events *p)
{
	struct http_event event = {
		.id = p->id,
		.name = p->name[0] ? p->name : "message",
		.data = buf_text(&p->data),
		.size = p->data.size,
	};
	int r = 0;

	if (p->has_data)
		r = p->callback(&event, p->userdata);
	buf_reset(&p->data);
	p->name[0] = '\0';
	p->has_data = false;
	return MIN(r, 0);
}

/* Keeps what fits; an id or a name that does not would mean another one when cut. */
static void keep(char *out, size_t size, const char *value)
{
	if (strlen(value) < size)
		(void)snprintf(out, size, "%s", value);
}

static int take_field(struct http_events *p, char *line)
{
	char *colon = strchr(line, ':');
	const char *value = "";

	if (colon) {
		*colon = '\0';
		value = colon + 1;
		if (*value == ' ')
			value++;
	}
	if (!strcmp(line, "data")) {
		if (p->has_data)
			(void)buf_putc(&p->data, '\n');
		p->has_data = true;
		return buf_puts(&p->data, value);
	}
	if (!strcmp(line, "event"))
		keep(p->name, sizeof(p->name), value);
	else if (!strcmp(line, "id"))
		keep(p->id, sizeof(p->id), value);
	return 0; /* a comment (empty name), "retry", or something to come */
}

static int end_line(struct http_events *p)
{
	int r;

	if (p->line.size == 0)
		return end_event(p);
	r = take_field(p, p->line.data);
	buf_reset(&p->line);
	return r;
}

int http_events_feed(struct http_events *p, const void *bytes, size_t n)
{
	const char *at = bytes, *end = at + n;
	int r = 0;

	while (r == 0 && at < end) {
		size_t used = 0;

		if (p->after_cr && *at == '\n')
			at++;
		p->after_cr = false;
		while (at + used < end && at[used] != '\n' && at[used] != '\r')
			used++;
		r = buf_append(&p->line, at, used);
		at += used;
		if (r < 0 || at == end)
			break;
		p->after_cr = *at++ == '\r';
		r = end_line(p);
	}
	return r;
}
