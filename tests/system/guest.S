/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole guest in one boot sector, for tests that care about the machine and not about what runs
 * in it. It counts its boots in the disk's second sector, prints "boot XXXX" (hexadecimal) on the
 * first serial port, and obeys single characters from there:
 *
 *   p  power off (ACPI)      r  reset (port 0xcf9)      t  reset by a triple fault
 *   d  be deaf: to the power button and to Ctrl-Alt-Del from now on
 *
 * Everything else is echoed. The power button powers off; Ctrl-Alt-Del is the firmware's, which
 * resets. The ACPI ports are where SeaBIOS puts them on QEMU's q35.
 */
	.code16
	.set	origin, 0x7c00
	.set	counter, 0x7e00
	.set	com, 0x3f8
	.set	pm_status, 0x600
	.set	pm_enable, 0x602
	.set	pm_control, 0x604

start:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$origin, %sp
	movb	%dl, disk - start + origin
	sti

	movw	$0x0201, %ax		/* read one sector */
	call	transfer
	incw	counter
	movw	$0x0301, %ax		/* write it back */
	call	transfer

	movw	$pm_enable, %dx
	movw	$0x0100, %ax		/* the power button may be heard */
	outw	%ax, %dx

	movw	$greeting - start + origin, %si
1:	lodsb
	testb	%al, %al
	jz	2f
	call	print
	jmp	1b
2:	movw	counter, %bx
	movw	$4, %cx
3:	rolw	$4, %bx
	movb	%bl, %al
	andb	$15, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	4f
	addb	$39, %al
4:	call	print
	loop	3b
	movb	$'\n', %al
	call	print

idle:	movw	$pm_status, %dx
	inw	%dx, %ax
	testw	$0x0100, %ax
	jnz	off
	movw	$com + 5, %dx
	inb	%dx, %al
	testb	$1, %al
	jz	idle
	movw	$com, %dx
	inb	%dx, %al
	cmpb	$'p', %al
	je	off
	cmpb	$'r', %al
	je	reset
	cmpb	$'t', %al
	je	fault
	cmpb	$'d', %al
	je	deaf
	call	print
	jmp	idle

off:	movw	$pm_control, %dx
	movw	$0x2000, %ax		/* soft-off */
	outw	%ax, %dx
	jmp	.
reset:	movw	$0xcf9, %dx
	movb	$6, %al
	outb	%al, %dx
	jmp	.
fault:	cli
	lidt	nothing - start + origin
	int3
deaf:	cli
	movw	$pm_enable, %dx
	xorw	%ax, %ax
	outw	%ax, %dx
	movb	$'D', %al
	call	print
	jmp	idle

/* The second sector of the boot disk, as %ax says. */
transfer:
	movw	$counter, %bx
	movw	$0x0002, %cx
	movb	$0, %dh
	movb	disk - start + origin, %dl
	int	$0x13
	ret

print:	pushw	%dx
	movw	$com, %dx
	outb	%al, %dx
	popw	%dx
	ret

greeting: .asciz "boot "
nothing: .word	0, 0, 0
disk:	.byte	0
	.org	510
	.word	0xaa55
