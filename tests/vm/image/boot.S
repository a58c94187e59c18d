/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest guest that shows what was booted: on the serial port it prints the text of the disk's second
 * sector and whether a card of ours is on PCI bus 0, writes that text into the third sector, and resets the
 * machine.
 */
	.code16
	.globl _start
_start:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	cld
	movw $0x8000, %bx
	movw $0x0201, %ax
	movw $0x0002, %cx
	call disk
	movw $0x8000, %si
	call print
	movw $0x8000, %bx
	movw $0x0301, %ax
	movw $0x0003, %cx
	call disk

	movl $0x80000000, %eax		/* vendor and device of each slot */
	movw $32, %cx
scan:
	movw $0xcf8, %dx
	outl %eax, %dx
	movl %eax, %edi
	movw $0xcfc, %dx
	inl %dx, %eax
	cmpl $0x51101234, %eax
	je found
	movl %edi, %eax
	addl $0x800, %eax
	loop scan
	jmp reset
found:
	movw $card, %si
	call print
reset:
	movw $end, %si
	call print
drain:
	movw $0x3fd, %dx
	inb %dx, %al
	testb $0x40, %al
	jz drain
	movb $0xfe, %al
	outb %al, $0x64
halt:
	hlt
	jmp halt

disk:					/* the firmware gives the drive in DL, once */
	cmpb $0, drive_kept
	jne 1f
	movb %dl, drive_kept
1:	movb drive_kept, %dl
	movb $0, %dh
	int $0x13
	jnc 2f
	movw $bad, %si
	call print
2:	ret

print:
	lodsb
	testb %al, %al
	jz 2f
	movb %al, %bl
1:	movw $0x3fd, %dx
	inb %dx, %al
	testb $0x20, %al
	jz 1b
	movw $0x3f8, %dx
	movb %bl, %al
	outb %al, %dx
	jmp print
2:	ret

drive_kept:
	.byte 0
card:
	.asciz "svio card\r\n"
bad:
	.asciz "disk error\r\n"
end:
	.asciz "end\r\n"
	.org 510
	.word 0xaa55
