//! Who is at the other end of the socket, and what that lets them do.
//!
//! The kernel names the user and group of each connection (SO_PEERCRED, unix(7)). Names come from `/etc/passwd` and `/etc/group`, read
//! anew for each connection, so that a change of membership acts at once; users of a directory service are listed by number.

use super::route::Right;
use std::fs;
use std::path::PathBuf;

/// The group whose members may look, but not sign.
pub const GROUP: &str = "p2plus";

/// Both ends of a connection, judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// What it may do.
    pub right: Right,
}

/// The rules of one daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRules {
    /// `[node] admins`: users by name or number.
    pub admins: Vec<String>,
    /// The user that the daemon runs as: it owns the keys anyway.
    pub owner_uid: u32,
    /// The table of users, passwd(5).
    pub passwd: PathBuf,
    /// The table of groups, group(5).
    pub group: PathBuf,
}

impl AccessRules {
    /// Makes the rules of a daemon that runs as `owner_uid`, over the system's tables.
    pub fn new(admins: Vec<String>, owner_uid: u32) -> Self {
        Self { admins, owner_uid, passwd: "/etc/passwd".into(), group: "/etc/group".into() }
    }

    /// Judges a user with its primary group.
    pub fn judge(&self, uid: u32, gid: u32) -> Caller {
        Caller { uid, right: self.right_of(uid, gid) }
    }

    fn right_of(&self, uid: u32, gid: u32) -> Right {
        if uid == 0 || uid == self.owner_uid || self.admins.contains(&uid.to_string()) {
            return Right::Admin;
        }
        let user = self.user_name(uid);
        if user.as_ref().is_some_and(|user| self.admins.contains(user)) {
            return Right::Admin;
        }
        let group = fs::read_to_string(&self.group).unwrap_or_default();
        if group.lines().any(|line| admits(line, gid, user.as_deref())) { Right::Group } else { Right::Anybody }
    }

    /// Finds a user's name. A name that itself looks like a number cannot be an admin by name: the number would mean somebody else.
    fn user_name(&self, uid: u32) -> Option<String> {
        let passwd = fs::read_to_string(&self.passwd).ok()?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
            (id.parse() == Ok(uid) && name.parse::<u32>().is_err()).then(|| name.to_owned())
        })
    }
}

/// Says whether a line of group(5) is the group `p2plus` and has this user in it, by primary group or by name.
fn admits(line: &str, gid: u32, user: Option<&str>) -> bool {
    let mut fields = line.split(':');
    let (Some(GROUP), Some(_password), Some(id), members) =
        (fields.next(), fields.next(), fields.next(), fields.next().unwrap_or_default())
    else {
        return false;
    };
    id.parse() == Ok(gid) || user.is_some_and(|user| members.split(',').any(|member| member == user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(folder: &std::path::Path, admins: &[&str]) -> AccessRules {
        fs::write(
            folder.join("passwd"),
            "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:\nbob:x:1001:1001::/:\n77:x:1002:1002::/:\n",
        )
        .unwrap();
        fs::write(folder.join("group"), "root:x:0:\np2plus2:x:901:ann\np2plus:x:900:carl,bob\n").unwrap();
        AccessRules {
            admins: admins.iter().map(|name| (*name).to_owned()).collect(),
            owner_uid: 555,
            passwd: folder.join("passwd"),
            group: folder.join("group"),
        }
    }

    #[test]
    fn each_user_has_the_right_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules(folder.path(), &["ann", "4000", "77"]);
        for (uid, gid, right) in [
            (0, 0, Right::Admin),
            (555, 5, Right::Admin),
            (1000, 1000, Right::Admin),
            (4000, 1, Right::Admin),
            (77, 1, Right::Admin),
            (1001, 1001, Right::Group),
            (3000, 900, Right::Group),
            (3000, 901, Right::Anybody),
            (1002, 1002, Right::Anybody),
            (65_534, 65_534, Right::Anybody),
        ] {
            assert_eq!(rules.judge(uid, gid), Caller { uid, right }, "{uid}:{gid}");
        }
    }

    #[test]
    fn without_tables_only_numbers_count() {
        let folder = tempfile::tempdir().unwrap();
        let mut rules = rules(folder.path(), &["ann", "4000"]);
        (rules.passwd, rules.group) = (folder.path().join("none"), folder.path().join("none"));
        assert_eq!(rules.judge(1000, 900).right, Right::Anybody);
        assert_eq!(rules.judge(4000, 1).right, Right::Admin);
    }
}
