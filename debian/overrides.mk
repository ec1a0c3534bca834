# Included by debian/rules, and by the rules file that stdeb generates (stdeb.cfg).
export DEB_BUILD_MAINT_OPTIONS = hardening=+all
export PYBUILD_SYSTEM = pyproject
# All that a build may run; the rest of the tests boots subhosts. No cache: pybuild would install it.
export PYBUILD_TEST_ARGS = -p no:cacheprovider tests/unit
# Private modules serve the default Python only; stdeb build-depends on all.
export DEBPYTHON3_SUPPORTED = $(shell py3versions -dv)
D = debian/overlay-boot
# In /lib or /usr/lib, as this release of Debian has it: dpkg does not know that these are one directory.
LSB = $(patsubst %/init-functions,%,$(lastword $(shell dpkg-query -S '*lib/lsb/init-functions')))/init-functions.d

execute_after_dh_auto_build:
	/usr/bin/python3 setup.py -q build_man build_launchers

ifeq ($(wildcard tests/unit),)
override_dh_auto_test:
endif

# Private modules need no site module to be found, which the launchers leave out.
execute_after_dh_auto_install:
	mkdir -p $(D)/usr/lib/overlay-boot $(D)/usr/libexec
	mv $(D)/usr/lib/python3*/dist-packages/overlay_boot $(D)/usr/lib/overlay-boot
	rm -rf $(D)/usr/bin $(D)/usr/lib/python3*
	cp -r build/launchers/sbin $(D)/usr/sbin
	cp -r build/launchers/libexec $(D)/usr/libexec/overlay-boot
	install -D build/launchers/ocf/subhost $(D)/usr/lib/ocf/resource.d/overlay-boot/subhost
	install -D -m 644 debian/dpkg.cfg $(D)/etc/dpkg/dpkg.cfg.d/overlay-boot
	install -D -m 644 debian/host/80-overlay-boot.rules $(D)/usr/lib/udev/rules.d/80-overlay-boot.rules
	install -D -m 644 debian/host/10-overlay-boot.network $(D)/usr/lib/systemd/network/10-overlay-boot.network
	install -D -m 644 debian/lsb/50-overlay-boot $(D)$(LSB)/50-overlay-boot
	cd $(D)/usr/lib/overlay-boot/overlay_boot && mv begin execute keeper reaper ../../../libexec/overlay-boot
	PYTHONPATH=$(D)/usr/lib/overlay-boot /usr/bin/python3 -BP setup.py -q build_completions build_filters
	@echo "blhc: ignore-line-regexp: .*musl-gcc .*(begin|execute|keeper|reaper).*"

# The output of subhosts is for root and, once postinst has given it away, group adm.
execute_after_dh_fixperms:
	chmod 2750 $(D)/var/log/overlay-boot

# What the package does starts, stops or restarts no subhost. A template unit needs a call of its own.
override_dh_installinit:
	dh_installinit --name=subhosts --no-start --no-stop-on-upgrade

override_dh_installsystemd:
	dh_installsystemd --name=subhosts --no-start --no-stop-on-upgrade
	dh_installsystemd --name=subhosts-boot --no-enable --no-start --no-stop-on-upgrade
	dh_installsystemd --name=subhosts@ --no-enable --no-start --no-stop-on-upgrade

# By name, since stdeb's control file has no place for a field of this kind.
override_dh_gencontrol:
	dh_gencontrol -- -D"Static-Built-Using=$$(dpkg-query -W -f '$${source:Package} (= $${source:Version})' musl-dev)"

# stdeb writes a changelog of its own, and debhelper would leave out NEWS that is older than the oldest entry there.
override_dh_installchangelogs:
	dh_installchangelogs --no-trim
