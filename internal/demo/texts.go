package demo

import "fmt"

const systemProperties = `# system properties of this Artifactory
artifactory.traffic.collectionIntervalSecs=60
artifactory.search.maxResults=1000
binary.provider.prune.chunk.size=500
`

const centralConfig = `<?xml version="1.0" encoding="UTF-8"?>
<config>
    <serverName>artifactory.acme.example</serverName>
    <localRepositories>
        <localRepository><key>libs-release-local</key><type>maven</type></localRepository>
    </localRepositories>
    <remoteRepositories>
        <remoteRepository><key>central</key><type>maven</type></remoteRepository>
    </remoteRepositories>
    <trashcanConfig><enabled>true</enabled><retentionPeriodDays>14</retentionPeriodDays></trashcanConfig>
</config>
`

const mimeTypes = `<mimetypes version="10">
    <mimetype type="application/java-archive" extensions="jar, war, ear" archive="true" index="true" css="jar"/>
    <mimetype type="application/x-maven-pom+xml" extensions="pom" viewable="true" syntax="xml" css="pom"/>
</mimetypes>
`

// logback is the configuration file that Change edits.
const logback = "etc/logback.xml"

func logbackConfig(level string) string {
	return fmt.Sprintf(`<configuration debug="false">
    <root>
        <level value="%s"/>
        <appender-ref ref="FILE"/>
    </root>
</configuration>
`, level)
}

// pluginPath is the plugin that every Change replaces by a newer one.
func pluginPath(round int) string {
	return fmt.Sprintf("etc/plugins/quarantineLabels-1.%d.groovy", round)
}

func plugin(name string, round int) string {
	return fmt.Sprintf(`// %s, version 1.%d
executions {
    %s(httpMethod: 'POST', groups: ['admins']) { params ->
        log.info "%s was asked for by ${security.currentUser().username}"
        status = 200
    }
}
`, name, round, name, name)
}
