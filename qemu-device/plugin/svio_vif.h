/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SVIO_VIF_TYPE_H
#define SVIO_VIF_TYPE_H

void svio_vif_register(void);

#endif
