/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Included before everything else in the adapter that the device tests build as svio-irqfd: QEMU's KVM
 * interface for irqfd, with QEMU's main loop in the place of the kernel. So the code for KVM runs under TCG.
 */
#ifndef SVIO_FAKE_KVM_H
#define SVIO_FAKE_KVM_H

#include "qemu/osdep.h"

#include "hw/pci/pci_device.h"
#include "qemu/event_notifier.h"
#include "system/kvm.h"

int fake_add_msi_route(KVMRouteChange *change, int vector, PCIDevice *pci);
int fake_update_msi_route(KVMState *kvm, int virq, MSIMessage message, PCIDevice *pci);
void fake_release_virq(KVMState *kvm, int virq);
int fake_add_irqfd(KVMState *kvm, EventNotifier *event, EventNotifier *resample, int virq);
int fake_remove_irqfd(KVMState *kvm, EventNotifier *event, int virq);

/* Of ioeventfd QEMU itself does under TCG what the kernel does under KVM. */
#undef kvm_enabled
#define kvm_enabled() true
#undef kvm_msi_via_irqfd_enabled
#define kvm_msi_via_irqfd_enabled() true
#define kvm_irqchip_add_msi_route fake_add_msi_route
#define kvm_irqchip_update_msi_route fake_update_msi_route
#define kvm_irqchip_release_virq fake_release_virq
#define kvm_irqchip_add_irqfd_notifier_gsi fake_add_irqfd
#define kvm_irqchip_remove_irqfd_notifier_gsi fake_remove_irqfd
/* Without KVM the real one does nothing. */

#endif
