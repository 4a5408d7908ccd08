package local

import (
	"postern/internal/fail"
	"postern/internal/safe"
)

func errNone() error {
	return fail.New(fail.NotFound, "P-E060", "could not open the safe").Because("there is none yet").Hint("postern setup")
}

func errThere() error {
	return fail.New(fail.Conflict, "P-E061", "could not make a safe").Because("there is one already").Hint("postern safe unlock")
}

func errLocked() *fail.Error {
	return fail.New(fail.Locked, "P-E062", "could not use the safe").Because("it is locked").Hint("postern safe unlock")
}

func errWrongRoot(kind string) error {
	e := fail.New(fail.Locked, "P-E063", "could not open the safe")
	switch kind {
	case safe.KindPassphrase:
		return e.Because("the passphrase is wrong")
	case safe.KindKeyFile:
		return e.Because("the key file belongs to another safe")
	}
	return e.Because("the root key belongs to another safe")
}

func errOtherRoot(has, got string) error {
	return fail.New(fail.Invalid, "P-E064", "could not open the safe").
		Because("it opens with a %s, not with a %s", rootName(has), rootName(got)).Hint("postern safe unlock")
}

func rootName(kind string) string {
	switch kind {
	case safe.KindKeyFile:
		return "key file"
	case safe.KindSystemd:
		return "systemd credential"
	}
	return kind
}

func errDamaged(format string, args ...any) error {
	return fail.New(fail.Invalid, "P-E065", "could not use the safe").Because(format, args...).
		Hint("postern doctor   says what is damaged; nothing was changed")
}

func errDamagedOne(name, why string) error {
	return fail.New(fail.Invalid, "P-E065", "could not use the credential %s", name).Because("%s", why).
		Hint("postern secret rm %s   and add it again; the others are not touched", name)
}

func errNewer(format int) error {
	return fail.New(fail.Invalid, "P-E072", "could not open the safe").
		Because("a newer Postern wrote it (format %d, this one knows %d); nothing was changed", format, currentFormat).
		Hint("postern version   and install the newer one")
}

func errNoCredential(name string) error {
	return fail.New(fail.NotFound, "P-E066", "could not find the credential %q", name).Because("the safe has none of this name").
		Hint("postern secret ls")
}

func errDisabled(agent, name string) error {
	e := fail.New(fail.NotAllowed, "P-E067", "could not lend %s", name)
	if agent != "" {
		e = fail.New(fail.NotAllowed, "P-E067", "could not lend %s to %s", name, agent)
	}
	return e.Because("it is disabled").Hint("postern secret enable %s", name)
}
