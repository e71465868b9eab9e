# The smallest guest: a boot sector. It counts its boots in the next sector of the disk, prints
# "MARK up boots=N" on the serial console, then a line "tick K" each second, and sleeps in between.
#
#   as --32 -o boot.o boot.S && ld -m elf_i386 -Ttext 0 --oformat binary -o boot.bin boot.o
.code16
.global _start
_start:
    ljmp $0x7c0, $1f
1:  mov %cs, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %dl, drive
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7c00, %sp
    xor %dx, %dx            # COM1 via BIOS: 9600 8n1 (rate is ignored by the emulated port)
    mov $0x00e3, %ax
    int $0x14
    mov $0x0201, %ax        # read sector 2 (LBA 1) to es:0x400
    call disk
    incw 0x400
    mov $0x0301, %ax        # and write it back
    call disk
    mov $msg, %si
    call puts
    mov 0x400, %ax
    call num
    call crlf
tick:
    mov $18, %bx            # 18.2 timer interrupts a second
2:  sti
    hlt
    dec %bx
    jnz 2b
    incw count
    mov $tmsg, %si
    call puts
    mov count, %ax
    call num
    call crlf
    jmp tick
disk:
    mov $0x400, %bx
    mov $2, %cx
    mov $0, %dh
    mov drive, %dl
    int $0x13
    ret
puts:
    lodsb
    test %al, %al
    jz 3f
    call putc
    jmp puts
3:  ret
putc:
    mov $1, %ah
    xor %dx, %dx
    int $0x14
    ret
crlf:
    mov $13, %al
    call putc
    mov $10, %al
    jmp putc
num:
    mov $10, %cx
    xor %di, %di
4:  xor %dx, %dx
    div %cx
    push %dx
    inc %di
    test %ax, %ax
    jnz 4b
5:  pop %ax
    add $'0', %al
    call putc
    dec %di
    jnz 5b
    ret
msg:  .asciz "MARK up boots="
tmsg: .asciz "tick "
drive: .byte 0
count: .word 0
.org 510
.word 0xaa55
