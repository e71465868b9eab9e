# The trial of lib/hypervisor/kvm_accel.py: a BIOS that does what the kernel of every guest does, in
# 64-bit mode, and tells QEMU how it went by the device isa-debug-exit.
#
#   as --64 -o trial.o trial.S && ld -m elf_x86_64 -Ttext 0xf0000 --oformat binary -o trial.bin trial.o
.code16
.global _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x8000, %sp
    # Page tables from 0x1000 on: the first 2 MiB, shown at their own place.
    mov $0x1000, %edi
    mov %edi, %cr3
    xor %eax, %eax
    mov $0x1000, %cx
    cld
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x0083, 0x3000
    # PAE, FXSAVE, exceptions of SSE
    mov $0x620, %eax
    mov %eax, %cr4
    # EFER.LME
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    lgdtl %cs:(gdtr - _start)
    # Protection and paging; caches on; no emulation of the FPU
    mov %cr0, %eax
    and $0x9ffffffb, %eax
    or $0x80000003, %eax
    mov %eax, %cr0
    ljmpl $8, $long
.code64
long:
    mov $16, %eax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x8000, %esp
    # One exception: a breakpoint
    lidt idtr
    mov $handler, %eax
    mov %ax, 0x4030
    movw $8, 0x4032
    movw $0x8e00, 0x4034
    shr $16, %eax
    mov %ax, 0x4036
    xor %ebx, %ebx
    int3
    cmp $1, %ebx
    jne bad
    fxsave 0x5100
    fxrstor 0x5100
    xor %eax, %eax
    xor %edx, %edx
    lock cmpxchg8b 0x5000
    # Takes very long if each instruction is emulated one by one
    mov $20000000, %ecx
1:  dec %ecx
    jnz 1b
    # Fine: exit code 33
    mov $0x10, %al
    out %al, $0xf4
bad:
    # Exit code 65
    mov $0x20, %al
    out %al, $0xf4
2:  hlt
    jmp 2b
handler:
    inc %ebx
    iretq
.balign 8
gdt: .quad 0, 0x00209b0000000000, 0x0000930000000000
gdtr: .word 23
 .long gdt
idtr: .word 0x3f
 .quad 0x4000
# Where a processor begins
.org 0xfff0
.code16
 .byte 0xea
 .word 0, 0xf000
.org 0x10000
