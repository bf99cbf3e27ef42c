/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host and the agent in a guest say to each other over the virtio-serial port
 * org.sosie.guest.0: frames both ways,
 *
 *   u32 length of what follows, u8 type, u32 session, payload      (integers little-endian)
 *
 * A session is one program; its number is the host's choice. After the host has connected anew it
 * sends HELLO, and the agent ends what sessions it still has: their output has no reader.
 *
 *   host to guest
 *   HELLO       -                                        answered by HELLO
 *   EXEC        u8 flags, u32 run, u8 length and member's name (none: the guest's choice),
 *               then NUL-ended arguments                 answered by STARTED or FAILED
 *   INPUT       bytes for standard input; none: its end
 *   SIGNAL      u8 signal number
 *
 *   guest to host
 *   HELLO       u32 protocol version, u8 1 when there is shared memory, text: the kernel's release
 *   STARTED     u32 process id
 *   OUTPUT      u8 1 or 2 (standard output, standard error), bytes
 *   EXITED      u8 0 and exit status, or u8 1 and signal number
 *   FAILED      text: why it could not be started
 */
#ifndef SOSIE_GUEST_PROTOCOL_H
#define SOSIE_GUEST_PROTOCOL_H

#define GUEST_PORT       "org.sosie.guest.0"
#define GUEST_VERSION    1
#define GUEST_FRAME_HEAD 9
#define GUEST_FRAME_MAX  65536 /* of what the length counts */
#define GUEST_SESSIONS   64
#define GUEST_ARGUMENTS  256
#define GUEST_MEMBER     1 /* flag of EXEC: as a member of the guest's group */

enum guest_message {
	GUEST_HELLO = 1,
	GUEST_EXEC,
	GUEST_INPUT,
	GUEST_SIGNAL,
	GUEST_STARTED,
	GUEST_OUTPUT,
	GUEST_EXITED,
	GUEST_FAILED,
};

#endif
