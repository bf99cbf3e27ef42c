/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest with which an accelerator is tried: a boot sector that goes the way of a kernel's early
 * boot, from real over protected to long mode with paging, asks CPUID, reads and writes model
 * specific registers, takes an exception, uses the local interrupt controller by its memory, and
 * is woken from HLT by its timer. It prints a letter on the first serial port at each stage, and
 * in the end writes PROBE_DONE to the debug exit port.
 */
	.set	origin, 0x7c00
	.set	tables, 0x10000		/* page tables, 4 pages */
	.set	idt, 0x5000
	.set	code32, 0x08
	.set	data32, 0x10
	.set	code64, 0x18
	.set	com, 0x3f8
	.set	apic, 0xfee00000

	.macro	tell letter
	movw	$com, %dx
	movb	$\letter, %al
	outb	%al, %dx
	.endm

	.section .rodata
	.globl	probe_guest
	.hidden	probe_guest
	.type	probe_guest, @object
	.balign	16
probe_guest:
	.code16
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$origin, %sp
	tell	'r'
	inb	$0x92, %al		/* address line 20 */
	orb	$2, %al
	outb	%al, $0x92
	movb	$0xff, %al		/* the old interrupt controllers keep quiet */
	outb	%al, $0x21
	outb	%al, $0xa1
	lgdt	gdt_pointer - probe_guest + origin
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmp	$code32, $(protected - probe_guest + origin)

	.code32
protected:
	movw	$data32, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	tell	'p'
	movl	$tables, %edi		/* the first 2 MiB, and those of the APIC, as they are */
	movl	$4096, %ecx
	xorl	%eax, %eax
	rep stosl
	movl	$tables + 0x1003, tables
	movl	$tables + 0x2003, tables + 0x1000
	movl	$tables + 0x3003, tables + 0x1018
	movl	$0x83, tables + 0x2000
	movl	$apic + 0x93, tables + 0x3fb8
	movl	$idt, %edi
	movl	$1024, %ecx
	rep stosl			/* %eax is 0 */
	movl	$(code64 << 16) + (invalid - probe_guest + origin), idt + 6 * 16
	movl	$0x8e00, idt + 6 * 16 + 4
	movl	$(code64 << 16) + (timer - probe_guest + origin), idt + 32 * 16
	movl	$0x8e00, idt + 32 * 16 + 4
	lidt	idt_pointer - probe_guest + origin
	movl	%cr4, %eax
	orb	$0x20, %al		/* PAE */
	movl	%eax, %cr4
	movl	$tables, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: long mode */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80010000, %eax	/* paging, and write protection */
	movl	%eax, %cr0
	ljmp	$code64, $(long_mode - probe_guest + origin)

	.code64
long_mode:
	movw	$data32, %ax
	movw	%ax, %ss
	movl	$origin, %esp
	tell	'l'
	xorl	%ebp, %ebp		/* what has happened: 1 an exception, 2 the timer */
	xorl	%eax, %eax
	cpuid
	testl	%eax, %eax
	jz	failed
	tell	'c'
	movl	$0x1b, %ecx		/* where the APIC is, and that it is enabled */
	rdmsr
	testl	$0x800, %eax
	jz	failed
	rdtsc
	tell	'm'
	ud2
	testb	$1, %bpl
	jz	failed
	tell	'x'
	movl	$apic, %ebx
	movl	$0x1ff, 0xf0(%rbx)	/* on */
	movl	$0xb, 0x3e0(%rbx)	/* not divided */
	movl	$0x20, 0x320(%rbx)	/* once, as vector 32 */
	movl	$0x10000, 0x380(%rbx)
	tell	'a'
	sti
	hlt
	cli
	testb	$2, %bpl
	jz	failed
	tell	't'
	movw	$PROBE_PORT, %dx
	movb	$PROBE_DONE, %al
	outb	%al, %dx
failed:	cli
	hlt
	jmp	failed

invalid:
	orb	$1, %bpl
	addq	$2, (%rsp)		/* behind ud2 */
	iretq
timer:	orb	$2, %bpl
	movl	$0, 0xb0(%rbx)		/* done with it */
	iretq

	.balign	4
gdt:	.quad	0
	.quad	0x00cf9a000000ffff	/* code, 32 bits */
	.quad	0x00cf92000000ffff	/* data */
	.quad	0x00af9a000000ffff	/* code, 64 bits */
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	gdt - probe_guest + origin
idt_pointer:
	.word	33 * 16 - 1
	.long	idt, 0
	.org	probe_guest + 510
	.word	0xaa55
	.size	probe_guest, . - probe_guest
	.section .note.GNU-stack, "", @progbits
